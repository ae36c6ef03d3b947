-- Restores the real clock of migrations/0001_engine.sql.
create or replace function pgflow.now() returns timestamptz
language sql stable parallel safe
as $$ select statement_timestamp() $$;

drop table if exists pgflow.clock;
