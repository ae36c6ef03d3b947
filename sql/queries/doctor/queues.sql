-- Examines each queue with jobs that are ready or due. => queue, jobs (at most 1001), age (of the oldest, seconds), served, paused_for (seconds, null: it is not paused), paused_by, orchestrates
with recursive heads as (  -- one index probe per queue and priority
    (
        select j.queue, j.priority, j.run_at
        from pgflow.jobs j where j.state = 'ready' and j.key is null order by j.queue, j.priority, j.run_at, j.id limit 1
    )
    union all
    select n.queue, n.priority, n.run_at
    from heads h cross join lateral (
        select j.queue, j.priority, j.run_at
        from pgflow.jobs j
        where j.state = 'ready' and j.key is null and (j.queue, j.priority) > (h.queue, h.priority)
        order by j.queue, j.priority, j.run_at, j.id
        limit 1
    ) n
),
keyed (queue) as (  -- the same for jobs with a partition key, of which no index has the oldest first
    (select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is not null order by j.queue, j.key limit 1)
    union all
    select (
        select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue > k.queue order by j.queue, j.key limit 1
    )
    from keyed k where k.queue is not null
),
due as materialized (
    select j.queue, j.run_at
    from pgflow.jobs j where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now() order by j.run_at, j.id limit 1001
),
first_keyed as materialized (
    select k.queue, count(*) as jobs, min(f.run_at) as oldest
    from keyed k cross join lateral (
        select j.run_at from pgflow.jobs j
        where j.state = 'ready' and j.key is not null and j.queue = k.queue order by j.key, j.priority, j.run_at, j.id limit 1001
    ) f
    group by k.queue
),
found as (
    select b.queue, min(b.run_at) as oldest
    from (
        select h.queue, h.run_at from (select * from heads limit 1000) h
        union all select d.queue, d.run_at from due d
        union all select k.queue, k.oldest from first_keyed k
    ) b
    group by b.queue
)
select
    f.queue,
    least(1001, (
        select count(*) from (
            select from pgflow.jobs j
            where j.state = 'ready' and j.key is null and j.queue = f.queue order by j.priority, j.run_at, j.id limit 1001
        ) r
    ) + (select count(*) from due d where d.queue = f.queue) + coalesce((select k.jobs from first_keyed k where k.queue = f.queue), 0)) as jobs,
    extract(epoch from pgflow.now() - nullif(f.oldest, '-infinity'))::double precision as age,
    exists (select from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease) and f.queue = any (w.queues)) as served,
    extract(epoch from pgflow.now() - q.paused_at)::double precision as paused_for,
    q.paused_by,
    exists (select from pgflow.definitions d where d.graph ->> 'orchestration_queue' = f.queue) as orchestrates
from found f left join pgflow.queues q on q.name = f.queue
order by f.queue
