-- Lists a page of tasks that match all filters, live and ended, by id. => id, task, status, queue, priority, attempt, max_attempts, args, enqueued_at, run_at, started_at, finished_at, worker, output, error, errors, tags, metadata, progress, is_paused (waits for an operator)
-- Never prepared: planned for the values of each call, the planner removes conditions on null parameters, and each filter can use its index.
-- A page is the first rows of both tables: each contributes at most `limit`.
with live as (
    select
        j.id, j.step as task, s.status, j.queue, j.priority, j.attempt, j.max_attempts, j.args, j.enqueued_at, j.run_at, j.worker, j.errors, j.tags, j.metadata, j.progress, j.state = 'parked' as is_paused
    from pgflow.jobs j
    cross join lateral (
        select case when j.state = 'running' then 'running' when j.attempt > 0 then 'waiting' else 'pending' end as status
    ) s
    where j.kind = 'task' and %(is_live)s::boolean
        and (%(task)s::text is null or j.step = %(task)s::text)
        and (%(statuses)s::text[] is null or s.status = any (%(statuses)s::text[]))
        and (%(queue)s::text is null or j.queue = %(queue)s::text)
        and (%(before)s::bigint is null or j.id < %(before)s::bigint)
        and (%(after)s::bigint is null or j.id > %(after)s::bigint)
        and (%(tags)s::text[] is null or j.tags @> %(tags)s::text[])
        and (%(args)s::jsonb is null or j.args @> %(args)s::jsonb)
    order by case when %(oldest)s::boolean then j.id end, j.id desc
    limit %(limit)s::bigint
),
ended as (
    select r.*
    from pgflow.task_results r
    where %(is_ended)s::boolean
        and (%(task)s::text is null or r.task = %(task)s::text)
        and (%(status)s::text is null or r.status = %(status)s::text)
        and (%(statuses)s::text[] is null or r.status = any (%(statuses)s::text[]))
        and (%(queue)s::text is null or r.queue = %(queue)s::text)
        and (%(before)s::bigint is null or r.id < %(before)s::bigint)
        and (%(after)s::bigint is null or r.id > %(after)s::bigint)
        and (%(tags)s::text[] is null or r.tags @> %(tags)s::text[])
        and (%(args)s::jsonb is null or r.args @> %(args)s::jsonb)
    order by case when %(oldest)s::boolean then r.id end, r.id desc
    limit %(limit)s::bigint
)
select *
from (
    select
        l.id, l.task, l.status, l.queue, l.priority, l.attempt, l.max_attempts, l.args::text, to_json(l.enqueued_at) #>> '{}' as enqueued_at,  -- text: it can represent infinity
        to_json(l.run_at) #>> '{}' as run_at, null::text as started_at, null::text as finished_at, l.worker, null::text as output, null::text as error,
        l.errors::text, l.tags, l.metadata::text, l.progress::text, l.is_paused
    from live l
    union all
    select
        e.id, e.task, e.status, e.queue, e.priority, e.attempt, e.max_attempts, e.args::text, to_json(e.enqueued_at) #>> '{}', null,
        to_json(e.started_at) #>> '{}', to_json(e.finished_at) #>> '{}', e.worker, e.output::text, e.error::text, e.errors::text, e.tags, e.metadata::text, null, false
    from ended e
) page
order by case when %(oldest)s::boolean then page.id end, page.id desc
limit %(limit)s::bigint
