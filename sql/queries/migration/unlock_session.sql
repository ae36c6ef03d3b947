-- Releases the lock of `lock_session`. => whether it was held
select pg_advisory_unlock(hashtext('pgflow migrate'), hashtext(%(schema)s::text))
