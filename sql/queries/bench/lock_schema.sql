-- Locks a schema until the session ends, so that two benchmarks do not share it. => locked
select pg_try_advisory_lock(hashtext('pgflow bench'), hashtext(%(schema)s::text))
