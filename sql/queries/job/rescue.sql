-- Frees the tokens of workers whose lease has ended. => queues, tokens
-- Decides and writes in one statement; an ended lease cannot be renewed, so no later heartbeat can undo the reason.
with lost as materialized (
    select j.id
    from pgflow.jobs j
    where j.state = 'running'
        and not exists (select from pgflow.workers w where w.id = j.worker and w.lease_expires_at > pgflow.now())
    order by j.id
    limit %(limit)s
    for no key update of j skip locked
),
freed as (
    update pgflow.jobs j
    set state = 'ready', worker = null, run_at = pgflow.now(),
        -- The attempt was counted when it was claimed; after the last one an advance token lets a worker end the instance.
        kind = case when j.kind = 'execute' and j.attempt >= j.max_attempts then 'advance' else j.kind end,
        errors = coalesce(j.errors, '[]') || jsonb_build_object(
            'reason', 'the worker was lost while the step ran', 'attempt', j.attempt, 'worker', j.worker, 'at', pgflow.now())
    from lost
    where j.id = lost.id
    returning j.queue
)
select coalesce(array_agg(distinct f.queue), '{}') as queues, count(*) as tokens from freed f
