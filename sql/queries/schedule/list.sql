-- Lists the schedules, or the one of that name. => its columns, is_running (whether the last run is active), now
select
    s.name, s.target, s.kind, s.cron, s.every, s.tz, s.input::text, s.value, s.overlap, s.catch_up, s.jitter, s.created_at, s.handled_at,
    s.next_at, s.last_at, s.last_run, s.last_error::text, s.fired, s.skipped, s.missed, s.paused_at, s.paused_by, s.declared_by, s.last_declared_at,
    s.undeclared_at,
    exists (
        select from pgflow.instances i
        where s.kind = 'workflow' and i.run = s.last_run and i.status in ('pending', 'running', 'waiting')
        union all select from pgflow.jobs j where s.kind = 'task' and j.id = s.last_run and j.kind = 'task'
    ) as is_running,
    pgflow.now() as now
from pgflow.schedules s
where %(name)s::text is null or s.name = %(name)s::text
order by s.name
