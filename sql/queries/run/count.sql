-- Counts the instances that match a filter document, up to a limit. => count
select count(*) from pgflow.matching_runs(%(filter)s::jsonb, null, null, false, %(limit)s::bigint)
