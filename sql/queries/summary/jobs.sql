-- Counts live jobs by what they do, up to a limit each, with the time since which the next ready one waits. => running, running_tasks, ready, scheduled, retrying, parked, held, next_attempt_at, oldest_ready_at
-- Each count reads one partial index, and at most `limit` entries of it.
select
    (select count(*) from (select from pgflow.jobs j where j.state = 'running' limit %(limit)s::bigint) c) as running,
    (select count(*) from (select from pgflow.jobs j where j.state = 'running' and j.kind = 'task' limit %(limit)s::bigint) c) as running_tasks,
    (select count(*) from (select from pgflow.jobs j where j.state = 'ready' and j.key is null limit %(limit)s::bigint) c)
        + (select count(*) from (select from pgflow.jobs j where j.state = 'ready' and j.key is not null limit %(limit)s::bigint) c) as ready,
    d.scheduled, d.retrying,
    (select count(*) from (select from pgflow.jobs j where j.state in ('scheduled', 'parked') limit %(limit)s::bigint + d.scheduled + d.retrying + d.held) c)
        - d.scheduled - d.retrying - d.held as parked,
    d.held, to_json(d.next_attempt_at) #>> '{}' as next_attempt_at,
    to_json((
        select min(q.run_at) from pgflow.known_queues() as k (name) cross join lateral (
            select r.run_at from (
                (select j.run_at from pgflow.jobs j where j.state = 'ready' and j.key is null and j.queue = k.name order by j.priority, j.run_at, j.id limit 1)
                union all
                (select j.run_at from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = k.name order by j.key, j.priority, j.run_at, j.id limit 1)
            ) r
        ) q
    )) #>> '{}' as oldest_ready_at
from (
    select
        count(*) filter (where j.state = 'scheduled' and j.errors is null) as scheduled,
        count(*) filter (where j.state = 'scheduled' and j.errors is not null) as retrying,
        count(*) filter (where j.state = 'parked') as held,
        min(j.run_at) filter (where j.state = 'scheduled' and j.errors is not null) as next_attempt_at
    from (
        (
            select j.state, j.errors, j.run_at from pgflow.jobs j
            where j.state = 'scheduled' and (j.state = 'scheduled' or (j.state = 'parked' and j.kind = 'execute')) order by j.run_at limit %(limit)s::bigint
        )
        union all
        (
            select j.state, j.errors, j.run_at from pgflow.jobs j
            where j.state = 'parked' and j.kind = 'execute' and (j.state = 'scheduled' or (j.state = 'parked' and j.kind = 'execute')) limit %(limit)s::bigint
        )
    ) j
) d
