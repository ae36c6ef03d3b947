-- For test installs only: rows that transactional steps write; without a key, so that a second write is visible.
create table pgflow.effects (run bigint not null, step text not null, nonce text not null, at timestamptz not null default clock_timestamp());
