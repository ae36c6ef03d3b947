-- Notes on which connection a worker goes on, after it lost the one before; not where its lease has ended, or this is not the server that it
-- registered with any more: one that was restored, or took the place of another, may have given its id to somebody else. => id, or no row
update pgflow.workers set backend = case pg_backend_pid() when %(backend)s::integer then pg_backend_pid() end, attached_at = clock_timestamp()
where id = %(worker)s::bigint and nonce = %(nonce)s and pgflow.is_leased(lease_expires_at, lease)
returning id
