-- Counts live workers, and expired ones that hold jobs. => live, expired, jobs (at most 1001 a worker), expired_for (seconds since the first lease expired, null: the row is gone), has_work (whether a job is ready or due)
with recursive holding as (  -- one index probe per worker that holds jobs
    select min(j.worker) as worker from pgflow.jobs j where j.state = 'running'
    union all
    select (select min(j.worker) from pgflow.jobs j where j.state = 'running' and j.worker > h.worker)
    from holding h where h.worker is not null
),
expired as (
    select w.lease_expires_at, (
        select count(*) from (
            select from pgflow.jobs j where j.state = 'running' and j.worker = h.worker order by j.worker limit 1001
        ) t
    ) as jobs
    from holding h left join pgflow.workers w on w.id = h.worker
    where h.worker is not null and (w.id is null or not pgflow.is_leased(w.lease_expires_at, w.lease))
)
select
    (select count(*) from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease)) as live,
    count(*) as expired,
    coalesce(sum(e.jobs), 0)::bigint as jobs,
    extract(epoch from pgflow.now() - nullif(min(e.lease_expires_at), '-infinity'))::double precision as expired_for,
    -- Ordered like an index: otherwise the planner may scan the table for the first match.
    exists (
        select from (
            select from pgflow.jobs j where j.state = 'ready' and j.key is null order by j.queue, j.priority, j.run_at, j.id limit 1
        ) r
    ) or exists (
        select from (select from pgflow.jobs j where j.state = 'ready' and j.key is not null order by j.queue, j.key limit 1) k
    ) or exists (
        select from (
            select from pgflow.jobs j
            where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now() order by j.run_at, j.id limit 1
        ) d
    ) as has_work
from expired e
