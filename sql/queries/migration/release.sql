-- Gives back the lock of `hold`. => had it
select pg_advisory_unlock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
