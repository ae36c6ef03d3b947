-- Counts the tasks of each status, up to a limit each. Of live ones the first `limit` jobs of each state are looked at, whatever they hold. => running, waiting, pending, is_cut (there are more live jobs than that), completed, failed, cancelled
with live as materialized (
    select l.part, l.kind, l.attempt
    from (
        (select 1 as part, j.kind, j.attempt from pgflow.jobs j where j.state = 'running' limit %(limit)s::bigint)
        union all
        (select 2, j.kind, j.attempt from pgflow.jobs j where j.state = 'ready' and j.key is null limit %(limit)s::bigint)
        union all
        (select 3, j.kind, j.attempt from pgflow.jobs j where j.state = 'ready' and j.key is not null limit %(limit)s::bigint)
        union all
        (select 4, j.kind, j.attempt from pgflow.jobs j where j.state in ('scheduled', 'parked') limit %(limit)s::bigint)
    ) l
)
select
    count(*) filter (where l.kind = 'task' and l.part = 1) as running,
    count(*) filter (where l.kind = 'task' and l.part > 1 and l.attempt > 0) as waiting,
    count(*) filter (where l.kind = 'task' and l.part > 1 and l.attempt = 0) as pending,
    exists (select from live c group by c.part having count(*) >= %(limit)s::bigint) as is_cut,
    (select count(*) from (select from pgflow.task_results r where r.status = 'completed' limit %(limit)s::bigint) c) as completed,
    (select count(*) from (select from pgflow.task_results r where r.status = 'failed' and r.status <> 'completed' limit %(limit)s::bigint) c) as failed,
    (select count(*) from (select from pgflow.task_results r where r.status = 'cancelled' and r.status <> 'completed' limit %(limit)s::bigint) c) as cancelled
from live l
