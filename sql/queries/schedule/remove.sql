-- Removes a schedule. => nothing
select from pgflow.remove_schedule(%(name)s::text, %(force)s::boolean)
