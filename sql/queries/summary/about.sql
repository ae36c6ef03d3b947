-- Reads the versions of the server and of the schema. => server_version, migration, is_replica
select current_setting('server_version') as server_version, (select max(m.version) from pgflow.migrations m) as migration, pg_is_in_recovery() as is_replica
