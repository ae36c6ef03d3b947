-- Reads tasks by the ids of their jobs, live or ended; without some that do not exist. => id, task, status, queue, priority, attempt, max_attempts, args, enqueued_at, run_at, started_at, finished_at, worker, output, error, errors, tags, metadata, progress, is_paused (waits for an operator)
select
    j.id, j.step as task, case when j.state = 'running' then 'running' when j.attempt > 0 then 'waiting' else 'pending' end as status,
    j.queue, j.priority, j.attempt, j.max_attempts, j.args::text, to_json(j.enqueued_at) #>> '{}' as enqueued_at,  -- text: it can represent infinity
    to_json(j.run_at) #>> '{}' as run_at, null::text as started_at, null::text as finished_at, j.worker, null::text as output, null::text as error,
    j.errors::text, j.tags, j.metadata::text, j.progress::text, j.state = 'parked' as is_paused
from unnest(%(ids)b::bigint[]) as g (id) join pgflow.jobs j on j.id = any (array[g.id])
where j.kind = 'task'
union all
select
    r.id, r.task, r.status, r.queue, r.priority, r.attempt, r.max_attempts, r.args::text, to_json(r.enqueued_at) #>> '{}', null,
    to_json(r.started_at) #>> '{}', to_json(r.finished_at) #>> '{}', r.worker, r.output::text, r.error::text, r.errors::text, r.tags, r.metadata::text, null, false
from unnest(%(ids)b::bigint[]) as g (id) join pgflow.task_results r on r.id = any (array[g.id])
