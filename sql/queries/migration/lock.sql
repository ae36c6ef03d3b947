-- Tries to be the only one to migrate this schema until the transaction ends; never waits. => got it
select pg_try_advisory_xact_lock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
