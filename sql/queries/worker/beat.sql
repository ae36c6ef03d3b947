-- Renews a lease that has not expired; an expired lease is never renewed. => id, or no row
update pgflow.workers
set lease_expires_at = pgflow.now() + make_interval(secs => %(lease)s::double precision)
where id = %(worker)s::bigint and nonce = %(nonce)s and pgflow.is_leased(lease_expires_at, lease)
returning id
