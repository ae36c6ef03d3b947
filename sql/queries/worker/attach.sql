-- Records the connection of a worker that has reconnected. Does nothing if its lease has expired, or if this server is not the one that it
-- registered with (restored from a backup, or failed over): its id may belong to another worker here. => id, or no row
update pgflow.workers set backend = case pg_backend_pid() when %(backend)s::integer then pg_backend_pid() end, attached_at = clock_timestamp()
where id = %(worker)s::bigint and nonce = %(nonce)s and pgflow.is_leased(lease_expires_at, lease)
returning id
