-- Pauses a schedule. => nothing
select from pgflow.pause_schedule(%(name)s::text, %(paused_by)s::text)
