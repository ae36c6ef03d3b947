-- The same lock until `release`, for what cannot run in a transaction. Never waits: a session that waits holds a snapshot, and
-- "create index concurrently" in the session that holds the lock would wait for that, both for ever. => got it
select pg_try_advisory_lock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
