-- Counts a page of the instances or tasks that match a filter, by status. => counted (JSON: states, last)
select pgflow.bulk_count(%(filter)s::jsonb, %(after)s::bigint, %(limit)s::integer, %(kind)s::text)::text as counted
