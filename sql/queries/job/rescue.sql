-- Rescues jobs: returns those of workers whose lease has expired to their queues. => queues, jobs, next_expiry (seconds until the next lease may expire, null: there is none)
-- One statement decides and writes. An expired lease cannot be renewed, so no later heartbeat can invalidate the decision.
with lost as materialized (
    select
        j.id, j.crashes,
        -- From the third on a crash may end the instance, so it counts only if this job was all that the worker held: see sql/README.md.
        -- A lease that ends in the future is not a crash: the clock was set back.
        (j.crashes < 2 or not exists (select from pgflow.jobs o where o.state = 'running' and o.worker = j.worker and o.id <> j.id))
            and not exists (select from pgflow.workers w where w.id = j.worker and w.lease_expires_at > pgflow.now()) as is_counted
    from pgflow.jobs j
    where j.state = 'running'
        and not exists (select from pgflow.workers w where w.id = any (array[j.worker]) and pgflow.is_leased(w.lease_expires_at, w.lease))
        and (select true from pgflow.jobs seen where seen.ctid = j.ctid)  -- EvalPlanQual guard: a worker may have claimed the job after our snapshot
    order by j.crashes >= 2 desc, j.id  -- quarantined jobs first: none must appear to have run alone because others were rescued before it
    limit %(limit)s
    for no key update of j skip locked
),
freed as (
    update pgflow.jobs j
    set state = 'ready', worker = null, key = nullif(j.key, '*'), run_at = pgflow.now(),
        crashes = j.crashes + c.more,
        attempt = j.attempt - (j.kind = 'task' or j.kind = 'execute' and not c.is_last)::integer,  -- the claim counted it, but the step did not fail
        -- After the last crash an advance job lets a worker end the instance. A task is claimed once more, and fails without running.
        kind = case when c.is_last and j.kind = 'execute' then 'advance' else j.kind end,
        queue = case when c.is_last and j.kind = 'execute' then coalesce((
            select d.graph ->> 'orchestration_queue'
            from pgflow.instances i join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
            where i.run = j.run), j.queue) else j.queue end,
        errors = case when c.more = 0 then j.errors else coalesce(j.errors, '[]') || jsonb_build_object(
            'reason', 'the worker was lost while the ' || case j.kind when 'task' then 'task' else 'step' end || ' ran', 'attempt', j.attempt, 'crashes', j.crashes + 1, 'worker', j.worker, 'at', pgflow.now()) end
    from (select l.id, l.is_counted::integer as more, l.is_counted and l.crashes >= 4 as is_last from lost l) c
    where j.id = any (array[c.id])  -- an index lookup per row: see sql/README.md
    returning j.queue
)
select
    coalesce((select array_agg(distinct f.queue) from freed f), '{}') as queues,
    (select count(*) from freed) as jobs,
    extract(epoch from (
        select min(w.lease_expires_at) from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease)
    ) - pgflow.now())::double precision as next_expiry
