-- Stores the schedules that an app declares. => nothing
select from pgflow.declare_schedules(%(app)s::text, %(declared)s::jsonb, %(is_worker)s::boolean)
