-- Puts a clock into a test install that can be moved for all sessions at once. For tests only: whoever may write this table can end every lease.
create table if not exists pgflow.clock (
    one boolean primary key default true check (one),
    ahead interval not null default interval '0'        -- of the real time; negative: behind it
);
insert into pgflow.clock default values on conflict do nothing;
grant select on pgflow.clock to public;                 -- whoever may ask for the time has to read it

-- Stable like the one that it replaces, so that an index on a time column is used as before.
create or replace function pgflow.now() returns timestamptz
language sql stable parallel safe
as $$ select statement_timestamp() + (select c.ahead from pgflow.clock c) $$;
