-- Stores the settings of queues that an app declares. => nothing
select from pgflow.declare_queues(%(declared)s::jsonb)
