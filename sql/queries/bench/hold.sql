-- Takes a lock on a schema for as long as the session lasts, so that two benchmarks do not share one. => got it
select pg_try_advisory_lock(hashtext('pgflow bench'), hashtext(%(schema)s::text))
