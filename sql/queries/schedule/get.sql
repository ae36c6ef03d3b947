-- Reads what a run of a schedule needs. => name, target, kind, cron, every, tz, input, value, overlap, catch_up, jitter, handled_at, now
select
    s.name, s.target, s.kind, s.cron, s.every, s.tz, s.input::text, s.value, s.overlap, s.catch_up, s.jitter, s.handled_at, pgflow.now()
from pgflow.schedules s
where s.name = %(name)s::text
