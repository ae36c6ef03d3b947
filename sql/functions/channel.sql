-- The channel on which workers of this schema are woken. Content-free hints: every role of a database may forge or miss one.
create or replace function pgflow.channel() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select 'pgflow_' || 'pgflow.jobs'::regclass::oid $$;
