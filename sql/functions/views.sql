-- Views for people and BI tools. They read no inputs, outputs or arguments. `create or replace view` can add columns at the end only, so a column
-- keeps its meaning once it is here.

-- Shows each instance with the state of its branches; the state of the branches is null or empty after the end. A query that filters and orders by
-- columns of `instances` uses its indexes, and looks up the rest for the rows that it returns.
create or replace view pgflow.instance_overview as
select
    i.run, i.id, i.workflow, i.version, i.status, i.tags, i.created_at, i.finished_at, i.deadline,
    extract(epoch from coalesce(i.finished_at, pgflow.now()) - i.created_at)::double precision as seconds,  -- to the end, or until now
    (select count(*) from pgflow.step_results r where r.run = i.run) as completed_steps,
    j.active_steps, j.queues, j.workers,
    j.next_at,                                           -- when the first branch continues by itself: a timer, a retry or a delayed start
    j.attempt,                                           -- the highest of a branch
    coalesce(j.needs_operator, false) as needs_operator,
    coalesce(i.error, j.error) ->> 'step' as error_step, -- of the failure, or of the last failed attempt
    coalesce(i.error, j.error) ->> 'type' as error_type,
    coalesce(i.error, j.error) ->> 'reason' as error_reason,
    i.metadata - 'pgflow:telemetry' as metadata
from pgflow.instances i
cross join lateral (
    select
        array_agg(distinct j.step order by j.step) filter (where j.step <> '') as active_steps,
        array_agg(distinct j.queue order by j.queue) as queues,
        array_agg(distinct j.worker order by j.worker) filter (where j.worker is not null) as workers,
        min(j.run_at) filter (where j.state in ('scheduled', 'parked')) as next_at,
        max(j.attempt) as attempt,
        bool_or(j.state = 'parked' and j.kind = 'execute') as needs_operator,
        (array_agg(jsonb_build_object('step', j.step) || (j.errors -> -1) order by j.id desc)
            filter (where jsonb_typeof(j.errors -> -1) = 'object'))[1] as error
    from pgflow.jobs j where j.run = i.run
) j;

-- Shows each queue in use: its pause, limits and workers, and its jobs. `ready` is counted up to 1,001 and `running` exactly; `oldest_ready_at` is
-- the time since when a job waits for a worker, with partition keys that of the first 1,001. For an autoscaler, see `pgflow.backlog`.
create or replace view pgflow.queue_overview as
select
    k.name, q.paused_at, q.paused_by,
    (select count(*) from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease) and k.name = any (w.queues)) as workers,
    least(1001, (
        select count(*) from (
            select from pgflow.jobs j
            where j.state = 'ready' and j.key is null and j.queue = k.name order by j.priority, j.run_at, j.id limit 1001
        ) c
    ) + keyed.jobs) as ready,
    coalesce(r.jobs, 0) as running,
    least(plain.oldest, keyed.oldest) as oldest_ready_at,
    q.worker_concurrency, coalesce(q.is_limited, false) as is_limited, q.concurrency, q.key_concurrency, q.rate, q.burst, q.key_rate, q.key_burst,
    (
        select jsonb_agg(
            jsonb_build_object('node', n.node, 'paused_at', n.paused_at, 'paused_by', n.paused_by, 'concurrency', n.concurrency) order by n.node)
        from pgflow.node_queues n where n.queue = k.name
    ) as nodes
from pgflow.known_queues() as k (name)
left join pgflow.queues q on q.name = k.name
left join (
    select j.queue || '' as queue, count(*) as jobs from pgflow.jobs j where j.state = 'running' group by 1
) r on r.queue = k.name
cross join lateral (
    with recursive head (priority, run_at) as (  -- one look into the index for each priority
        (
            select j.priority, j.run_at
            from pgflow.jobs j
            where j.state = 'ready' and j.key is null and j.queue = k.name order by j.priority, j.run_at, j.id limit 1
        )
        union all
        select n.priority, n.run_at
        from head h cross join lateral (
            select j.priority, j.run_at
            from pgflow.jobs j
            where j.state = 'ready' and j.key is null and j.queue = k.name and j.priority > h.priority order by j.priority, j.run_at, j.id limit 1
        ) n
    )
    select min(h.run_at) as oldest from (select h.run_at from head h limit 1000) h
) plain
cross join lateral (
    select count(*) as jobs, min(f.run_at) as oldest
    from (
        select j.run_at from pgflow.jobs j
        where j.state = 'ready' and j.key is not null and j.queue = k.name order by j.key, j.priority, j.run_at, j.id limit 1001
    ) f
) keyed;
