-- Looks at leases, and at the tokens of workers whose lease has ended. => live, ended, tokens (at most 1001 a worker), ended_for (seconds since the first of them ended, null: its row is gone), work (whether a token is ready or due)
with recursive holding as (  -- one look into the index per worker that holds tokens
    select min(j.worker) as worker from pgflow.jobs j where j.state = 'running'
    union all
    select (select min(j.worker) from pgflow.jobs j where j.state = 'running' and j.worker > h.worker)
    from holding h where h.worker is not null
),
ended as (
    select w.lease_expires_at, (
        select count(*) from (
            select from pgflow.jobs j where j.state = 'running' and j.worker = h.worker order by j.worker limit 1001
        ) t
    ) as tokens
    from holding h left join pgflow.workers w on w.id = h.worker
    where h.worker is not null and (w.id is null or not pgflow.is_leased(w.lease_expires_at, w.lease))
)
select
    (select count(*) from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease)) as live,
    count(*) as ended,
    coalesce(sum(e.tokens), 0)::bigint as tokens,
    extract(epoch from pgflow.now() - nullif(min(e.lease_expires_at), '-infinity'))::double precision as ended_for,
    -- In the order of an index, or the planner might read the table for the first that it meets.
    exists (
        select from (select from pgflow.jobs j where j.state = 'ready' order by j.queue, j.priority, j.run_at, j.id limit 1) r
    ) or exists (
        select from (
            select from pgflow.jobs j
            where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now() order by j.run_at, j.id limit 1
        ) d
    ) as work
from ended e
