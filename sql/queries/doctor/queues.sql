-- Examines each queue with jobs that are ready or due. => queue, jobs (at most 1001), age (of the oldest, seconds), served, paused, orchestrates
with recursive heads as (  -- one index probe per queue and priority
    (
        select j.queue, j.priority, j.run_at
        from pgflow.jobs j where j.state = 'ready' order by j.queue, j.priority, j.run_at, j.id limit 1
    )
    union all
    select n.queue, n.priority, n.run_at
    from heads h cross join lateral (
        select j.queue, j.priority, j.run_at
        from pgflow.jobs j
        where j.state = 'ready' and (j.queue, j.priority) > (h.queue, h.priority)
        order by j.queue, j.priority, j.run_at, j.id
        limit 1
    ) n
),
due as materialized (
    select j.queue, j.run_at
    from pgflow.jobs j where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now() order by j.run_at, j.id limit 1001
),
found as (
    select b.queue, min(b.run_at) as oldest
    from (select h.queue, h.run_at from (select * from heads limit 1000) h union all select d.queue, d.run_at from due d) b
    group by b.queue
)
select
    f.queue,
    least(1001, (
        select count(*) from (
            select from pgflow.jobs j where j.state = 'ready' and j.queue = f.queue order by j.priority, j.run_at, j.id limit 1001
        ) r
    ) + (select count(*) from due d where d.queue = f.queue)) as jobs,
    extract(epoch from pgflow.now() - nullif(f.oldest, '-infinity'))::double precision as age,
    exists (select from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease) and f.queue = any (w.queues)) as served,
    exists (select from pgflow.queues q where q.name = f.queue and q.paused_at is not null) as paused,
    exists (select from pgflow.definitions d where d.graph ->> 'orchestration_queue' = f.queue) as orchestrates
from found f
order by f.queue
