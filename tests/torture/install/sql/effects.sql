-- For test installs only: what transactional steps write in their own transactions; no key, so that a second write is seen.
create table pgflow.effects (run bigint not null, step text not null, nonce text not null, at timestamptz not null default clock_timestamp());
