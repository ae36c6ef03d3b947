-- Tries to take the migration lock of a schema until the transaction ends; never waits. => whether it was taken
select pg_try_advisory_xact_lock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
