-- Frees the tokens of workers whose lease has ended. => queues, tokens, next_expiry (seconds until the next lease could end, null: none)
-- Decides and writes in one statement; a lease that has ended cannot be renewed, so no later heartbeat can undo the reason.
with lost as materialized (
    select j.id
    from pgflow.jobs j
    where j.state = 'running'
        and not exists (select from pgflow.workers w where w.id = j.worker and w.lease_expires_at > pgflow.now())
        and (select true from pgflow.jobs seen where seen.ctid = j.ctid)  -- not what a worker holds by now that this statement cannot see
    order by j.id
    limit %(limit)s
    for no key update of j skip locked
),
freed as (
    update pgflow.jobs j
    set state = 'ready', worker = null, run_at = pgflow.now(),
        -- The attempt was counted when it was claimed; after the last one an advance token lets a worker end the instance.
        kind = case when j.kind = 'execute' and j.attempt >= j.max_attempts then 'advance' else j.kind end,
        queue = case when j.kind = 'execute' and j.attempt >= j.max_attempts then coalesce((
            select d.graph ->> 'orchestration_queue'
            from pgflow.instances i join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
            where i.run = j.run), j.queue) else j.queue end,
        errors = coalesce(j.errors, '[]') || jsonb_build_object(
            'reason', 'the worker was lost while the step ran', 'attempt', j.attempt, 'worker', j.worker, 'at', pgflow.now())
    where j.id = any (array(select l.id from lost l))
    returning j.queue
)
select
    coalesce((select array_agg(distinct f.queue) from freed f), '{}') as queues,
    (select count(*) from freed) as tokens,
    extract(epoch from (
        select min(w.lease_expires_at) from pgflow.workers w where w.lease_expires_at > pgflow.now()
    ) - pgflow.now())::double precision as next_expiry
