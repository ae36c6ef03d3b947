-- Counts the tasks that match a filter document, up to a limit. => count
select count(*) from pgflow.matching_tasks(%(filter)s::jsonb, null, null, false, %(limit)s::bigint)
