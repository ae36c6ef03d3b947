-- Reads tasks that ended too long ago, for an archive, at most `limit`. => id, task, status, queue, priority, attempt, max_attempts, args, enqueued_at, run_at, started_at, finished_at, worker, output, error, errors, tags, metadata, progress, is_paused (waits for an operator)
select
    r.id, r.task, r.status, r.queue, r.priority, r.attempt, r.max_attempts, r.args::text, to_json(r.enqueued_at) #>> '{}' as enqueued_at,  -- text: it can represent infinity
    null::text as run_at, to_json(r.started_at) #>> '{}' as started_at, to_json(r.finished_at) #>> '{}' as finished_at, r.worker,
    r.output::text, r.error::text, r.errors::text, r.tags, r.metadata::text, null::text as progress, false as is_paused
from pgflow.expired_tasks(
    make_interval(secs => %(completed)s::double precision), make_interval(secs => %(failed)s::double precision),
    make_interval(secs => %(cancelled)s::double precision), %(max_count)s::bigint, %(overrides)s::boolean, %(limit)s::integer) e
join pgflow.task_results r on r.id = any (array[e.id])
