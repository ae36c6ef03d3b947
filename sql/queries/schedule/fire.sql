-- Carries out decisions about due schedules. => name, status, started, queues, cancelled, error
select f.name, f.status, f.started, f.queues, f.cancelled, f.error from pgflow.fire_schedules(%(firings)s::jsonb) f
