-- Counts the other sessions with this application name. => sessions
select count(*) from pg_catalog.pg_stat_activity a where a.application_name = %(name)s::text and a.pid <> pg_backend_pid()
