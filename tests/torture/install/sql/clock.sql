-- For test installs only: a clock that can be moved for all sessions. A role that may write this table can expire every lease.
create table if not exists pgflow.clock (
    one boolean primary key default true check (one),
    ahead interval not null default interval '0'        -- of the real time; negative: behind it
);
insert into pgflow.clock default values on conflict do nothing;
grant select on pgflow.clock to public;                 -- every role that reads the time

-- Stable like the function that it replaces, so that indexes on time columns are still used.
create or replace function pgflow.now() returns timestamptz
language sql stable parallel safe
as $$ select statement_timestamp() + (select c.ahead from pgflow.clock c) $$;
