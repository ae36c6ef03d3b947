-- Ends a worker's lease at once; it has given its jobs back before. => nothing
update pgflow.workers set lease_expires_at = pgflow.now() where id = %(worker)s::bigint
