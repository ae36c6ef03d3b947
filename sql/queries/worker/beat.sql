-- Renews a lease that has not ended; one that has ended stays ended. => id, or no row
update pgflow.workers
set lease_expires_at = pgflow.now() + make_interval(secs => %(lease)s::double precision)
where id = %(worker)s::bigint and nonce = %(nonce)s and pgflow.is_leased(lease_expires_at, lease)
returning id
