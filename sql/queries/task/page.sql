-- A page of the tasks that match a filter document, as a list shows them. => id, task, state, attempt, max_attempts, queue, priority, args (null: larger than `size`), args_size, enqueued_at, run_at, started_at, finished_at, worker, error_type, error_reason, tags
-- What one row costs is bounded: of its arguments `size` bytes, of its error 500.
with page as materialized (
    select m.id, m.ord
    from pgflow.matching_tasks(%(filter)s::jsonb, %(after)s::bigint, %(before)s::bigint, %(oldest)s::boolean, %(limit)s::bigint) with ordinality as m (id, ord)
)
select
    t.id, t.task, t.state, t.attempt, t.max_attempts, t.queue, t.priority,
    case when octet_length(t.args::text) <= %(size)s::integer then t.args::text end as args, octet_length(t.args::text) as args_size,
    to_json(t.enqueued_at) #>> '{}' as enqueued_at, to_json(t.run_at) #>> '{}' as run_at,  -- text: it can represent infinity
    to_json(t.started_at) #>> '{}' as started_at, to_json(t.finished_at) #>> '{}' as finished_at,
    t.worker, left(t.error ->> 'type', 200) as error_type, left(t.error ->> 'reason', 500) as error_reason, t.tags
from page p
cross join lateral (
    select
        j.id, j.step as task,
        case when j.state = 'parked' then 'held' when j.state = 'scheduled' and j.attempt > 0 then 'retrying' else j.state end as state,
        j.attempt, j.max_attempts, j.queue, j.priority, j.args, j.enqueued_at, j.run_at, null::timestamptz as started_at, null::timestamptz as finished_at,
        j.worker, j.errors -> -1 as error, j.tags
    from pgflow.jobs j where j.id = any (array[p.id]) and j.kind = 'task'
    union all
    select
        r.id, r.task, r.status, r.attempt, r.max_attempts, r.queue, r.priority, r.args, r.enqueued_at, null, r.started_at, r.finished_at,
        r.worker, r.error, r.tags
    from pgflow.task_results r where r.id = any (array[p.id])
) t
order by p.ord
