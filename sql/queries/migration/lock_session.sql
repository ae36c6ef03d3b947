-- Tries to take the migration lock for the session, until `unlock_session`, for statements that cannot run in a transaction. => whether it was taken
-- Never waits: a waiting session holds a snapshot, for which "create index concurrently" in the session with the lock would wait: a deadlock.
select pg_try_advisory_lock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
