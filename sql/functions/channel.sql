-- Returns the channel of this schema's wake-up notifications. They are hints: any role of the database may send one, and one may be lost.
create or replace function pgflow.channel() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select 'pgflow_' || 'pgflow.jobs'::regclass::oid $$;
