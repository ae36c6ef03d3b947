-- Notes on which connection a worker goes on, after it lost the one before. => nothing
update pgflow.workers set backend = pg_backend_pid(), attached_at = clock_timestamp() where id = %(worker)s::bigint
