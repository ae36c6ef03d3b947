-- Writes the outcomes of a batch of claimed jobs. => id, run, step, status, kept, is_branch, is_awaited (a task has ended, and an app waits for tasks)
-- One group of arrays per effect; sql/README.md, "The settle", lists their columns and what each writes.
-- Locks: instances, then jobs. Both skip locked rows, so this statement never waits and cannot deadlock.
-- Joins by `= any (array[...])` and conditions in `nullif(..., false) is not null` force an index lookup per row, whatever size the planner
-- expects of the table. `series` makes it expect a large batch (sql/README.md, "Plans").
-- status: done | conflict (the instance is locked or has moved on: the job is now of the kind advance) |
--         busy (locked by another session, nothing was written: settle it again) | fenced (the lease was lost, nothing was written)
with claimed as materialized (
    select c.*
    from unnest(
        %(job_id)b::bigint[], %(job_run)b::bigint[], %(job_attempt)b::integer[], %(job_step)b::text[], %(job_kind)b::text[],
        %(job_guarded)b::boolean[], %(job_signal)b::bigint[]
    ) as c (id, run, attempt, step, kind, guarded, signal), generate_series(1, 100) as series where series < 2
),
changes as materialized (
    select c.*
    from unnest(
        %(instance_run)b::bigint[], %(instance_revision)b::integer[], %(instance_status)b::text[], %(instance_metadata)b::text[],
        %(instance_error)b::text[], %(instance_hook)b::boolean[]
    ) as c (run, revision, status, metadata, error, hook), generate_series(1, 100) as series where series < 2
),
moves as materialized (
    select m.*
    from unnest(
        %(move_job)b::bigint[], %(move_step)b::text[], %(move_config)b::text[], %(move_queue)b::text[], %(move_priority)b::smallint[],
        %(move_max_attempts)b::smallint[], %(move_solo)b::boolean[], %(move_keep)b::boolean[]
    ) as m (job, step, config, queue, priority, max_attempts, solo, keep)
),
branches as materialized (
    select b.*
    from unnest(
        %(branch_run)b::bigint[], %(branch_step)b::text[], %(branch_config)b::text[], %(branch_queue)b::text[],
        %(branch_priority)b::smallint[], %(branch_max_attempts)b::smallint[], %(branch_keep)b::boolean[], %(branch_kind)b::text[]
    ) as b (run, step, config, queue, priority, max_attempts, keep, kind), generate_series(1, 100) as series where series < 2
),
held as materialized (  -- a decision holds only for the revision it was made on; null: for any (a failure)
    select i.run, coalesce(g.status = 'failed', false) as fails
    from pgflow.instances i join changes g on i.run = any (array[g.run])
    where nullif(i.status in ('pending', 'running', 'waiting') and (g.revision is null or i.revision = g.revision), false) is not null
    order by g.run
    for no key update of i skip locked
),
fenced as materialized (  -- fencing: the job must still be ours, in this attempt, at this step
    select d.id
    from claimed d join pgflow.jobs j on j.id = any (array[d.id])
    where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt and j.step = d.step and j.kind = d.kind, false) is not null
        and (select count(*) from held) >= 0  -- evaluated first: instances are locked before jobs
    order by d.id
    for no key update of j skip locked
),
finishing as materialized (  -- tasks that end; they have no instance, so the fence is all that they depend on
    select f.*
    from unnest(
        %(finish_job)b::bigint[], %(finish_attempt)b::integer[], %(finish_status)b::text[], %(finish_output)b::text[], %(finish_error)b::text[],
        %(finish_seconds)b::double precision[], %(finish_hook)b::boolean[]
    ) as f (job, attempt, status, output, error, seconds, hook), generate_series(1, 100) as series where series < 2
),
owned as materialized (
    select f.job
    from finishing f join pgflow.jobs j on j.id = any (array[f.job])
    where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = f.attempt and j.kind = 'task', false) is not null
        and (select count(*) from held) >= 0  -- as above
    order by f.job
    for update of j skip locked
),
decided as materialized (  -- a decision covers all guarded jobs of its instance: all of them are written, or none
    select h.run, h.fails
    from held h
    where not exists (select from claimed d where d.run = h.run and d.guarded and not exists (select from fenced x where x.id = d.id))
),
crowded as materialized (  -- where this worker may not keep a job: a more urgent one is ready, or the queue may not be claimed from, as in claim.sql
    select k.queue, k.priority
    from (select queue, priority from moves where keep union select queue, priority from branches where keep) k
    where exists (select from pgflow.jobs r where r.state = 'ready' and r.key is null and r.queue = k.queue and r.priority < k.priority)
        or exists (select from pgflow.queues p where p.name = k.queue and (p.paused_at is not null or p.is_limited))
),
outcome as materialized (  -- one row per claimed job. Conditions are booleans, of which the planner expects half the rows to be true
    select
        d.*, x.id is not null as is_ours, v.is_written,
        v.is_written and c.fails is not true as takes_effect,  -- if the instance fails, `cleared` deletes the job instead
        x.id is not null and not v.is_written and a.job is not null as is_conflict,
        a.queue as advance_queue, a.awaits, a.keeps_result, a.errors as advance_errors,
        m.step as next_step, m.config, m.queue, m.priority, m.max_attempts, m.solo,
        m.keep and not exists (select from crowded w where w.queue = m.queue and w.priority = m.priority) as kept
    from claimed d
    left join fenced x on x.id = d.id
    left join decided c on c.run = d.run
    left join moves m on m.job = d.id
    left join unnest(
        %(advance_job)b::bigint[], %(advance_queue)b::text[], %(advance_awaits)b::text[], %(advance_keeps_result)b::boolean[],
        %(advance_errors)b::text[]
    ) as a (job, queue, awaits, keeps_result, errors) on a.job = d.id
    cross join lateral (select x.id is not null and (not d.guarded or c.run is not null)) as v (is_written)
),
results as materialized (
    select r.*, o.run, o.step, o.attempt, r.applied and o.is_written as is_applied
    from unnest(
        %(result_job)b::bigint[], %(result_event)b::text[], %(result_targets)b::text[], %(result_output)b::text[],
        %(result_metadata)b::text[], %(result_errors)b::text[], %(result_seconds)b::double precision[], %(result_applied)b::boolean[],
        %(result_stored)b::boolean[]
    ) as r (job, event, targets, output, metadata, errors, seconds, applied, stored)
    join outcome o on o.id = r.job
    where o.is_written or (o.is_conflict and o.keeps_result)
),
recorded as (
    insert into pgflow.step_results (run, step, event, targets, output, metadata, errors, attempt, worker, applied, started_at)
    select
        r.run, r.step, r.event, case when r.targets is not null then array(select jsonb_array_elements_text(r.targets::jsonb)) end,
        r.output::jsonb, r.metadata::jsonb, r.errors::jsonb, r.attempt, %(worker)s::bigint, r.is_applied,
        pgflow.now() - make_interval(secs => r.seconds)
    from results r
    where not r.stored
    order by r.job
),
folded as (  -- a result that an earlier settle recorded without applying it
    update pgflow.step_results s
    set applied = true,
        targets = case when r.targets is null then s.targets else array(select jsonb_array_elements_text(r.targets::jsonb)) end
    from results r
    where r.stored and r.is_applied and s.run = any (array[r.run]) and s.step = r.step
),
moved as (
    update pgflow.jobs j
    set kind = 'execute', step = o.next_step, config = o.config::jsonb, queue = o.queue, priority = o.priority,
        max_attempts = o.max_attempts, solo = o.solo,
        state = case when o.kept then 'running' else 'ready' end,
        worker = case when o.kept then j.worker end,
        attempt = o.kept::integer,
        crashes = 0,  -- the step has run, and its worker is alive; so in `parked` and `advanced`
        run_at = case when o.kept then j.run_at else pgflow.now() end,  -- kept: no indexed column changes, so the update is HOT
        awaits = null, parked_at = null, errors = null, progress = null, expires_at = null,
        key = nullif(j.key, '*'),  -- '*' only while it runs in a queue with limits
        checkpoint = case when j.step = '' then j.checkpoint -> o.next_step end  -- of a step that failed its instance, which is retried
    from outcome o
    where j.id = any (array[o.id]) and o.takes_effect and o.kept is not null
),
parked as (
    update pgflow.jobs j
    set kind = 'resume', queue = coalesce(p.queue, j.queue), state = 'parked', worker = null, crashes = 0,
        run_at = pgflow.now() + make_interval(secs => p.seconds), awaits = p.awaits::jsonb, parked_at = pgflow.now(), errors = null,
        key = nullif(j.key, '*'), expires_at = null
    from unnest(
        %(park_job)b::bigint[], %(park_queue)b::text[], %(park_awaits)b::text[], %(park_seconds)b::double precision[]
    ) as p (job, queue, awaits, seconds)
    join outcome o on o.id = p.job
    where j.id = any (array[p.job]) and o.takes_effect
),
paused as (  -- the attempts are used up: waits for an operator, who retries it, completes it or fails it
    update pgflow.jobs j
    set kind = case j.kind when 'task' then 'task' else 'execute' end, queue = p.queue, state = 'parked', worker = null, crashes = 0,
        run_at = null, key = nullif(j.key, '*'), awaits = null, parked_at = pgflow.now(), errors = p.errors::jsonb, expires_at = null
    from unnest(%(pause_job)b::bigint[], %(pause_queue)b::text[], %(pause_errors)b::text[]) as p (job, queue, errors)
    join outcome o on o.id = p.job
    where j.id = any (array[p.job]) and o.takes_effect
),
retried as (
    update pgflow.jobs j
    set state = 'scheduled', worker = null, key = nullif(j.key, '*'), errors = r.errors::jsonb, expires_at = null,
        run_at = pgflow.now() + pgflow.backoff(r.backoff, r.base, r.cap, r.jitter, j.attempt, random())
    from unnest(
        %(retry_job)b::bigint[], %(retry_errors)b::text[], %(retry_backoff)b::text[], %(retry_base)b::double precision[],
        %(retry_cap)b::double precision[], %(retry_jitter)b::double precision[]
    ) as r (job, errors, backoff, base, cap, jitter)
    join outcome o on o.id = r.job
    where j.id = any (array[r.job]) and o.takes_effect
),
snoozed as (
    update pgflow.jobs j
    set state = case when s.seconds is null then 'ready' else 'scheduled' end, worker = null, key = nullif(j.key, '*'),
        attempt = j.attempt - (j.kind in ('execute', 'task'))::integer,  -- the attempt does not count
        run_at = pgflow.now() + make_interval(secs => coalesce(s.seconds, 0)),
        errors = coalesce(s.errors::jsonb, j.errors),
        expires_at = case when not s.began then j.expires_at end
    from unnest(
        %(snooze_job)b::bigint[], %(snooze_seconds)b::double precision[], %(snooze_errors)b::text[], %(snooze_began)b::boolean[]
    ) as s (job, seconds, errors, began)
    join outcome o on o.id = s.job
    where j.id = any (array[s.job]) and o.takes_effect
),
ended as (
    delete from pgflow.jobs j
    using unnest(%(end_job)b::bigint[]) as e (job) join outcome o on o.id = e.job
    where j.id = any (array[e.job]) and o.takes_effect
),
advanced as (  -- the result is applied, or the wait decided again, by the next claim; a second conflict in a row is delayed
    update pgflow.jobs j
    set kind = 'advance', queue = coalesce(o.advance_queue, j.queue), worker = null, key = nullif(j.key, '*'),
        state = case o.kind when 'advance' then 'scheduled' else 'ready' end,
        run_at = case o.kind when 'advance' then pgflow.now() + interval '25 milliseconds' else pgflow.now() end,
        crashes = case when o.keeps_result then 0 else j.crashes end,
        awaits = o.awaits::jsonb,
        errors = case when not o.keeps_result then coalesce(o.advance_errors::jsonb, j.errors) end
    from outcome o
    where j.id = any (array[o.id]) and o.is_conflict
),
finished as (
    delete from pgflow.jobs j using owned o where j.id = any (array[o.job])
    returning
        j.id, j.step, j.queue, j.priority, j.attempt, j.max_attempts, j.enqueued_at, j.worker, j.args, j.errors, j.tags, j.metadata, j.unique_key,
        j.key, j.cost, j.checkpoint
),
archived as (
    insert into pgflow.task_results (
        id, task, queue, status, priority, attempt, max_attempts, enqueued_at, started_at, worker, args, output, error, errors, tags, metadata,
        unique_key, key, cost, checkpoint)
    select
        d.id, d.step, d.queue, f.status, d.priority, d.attempt, d.max_attempts, d.enqueued_at, pgflow.now() - make_interval(secs => f.seconds),
        d.worker, d.args, f.output::jsonb, f.error::jsonb, d.errors, d.tags, d.metadata, d.unique_key,
        case when f.status = 'failed' then nullif(d.key, '*') end, case when f.status = 'failed' then nullif(d.cost, 1) end,
        case when f.status = 'failed' then d.checkpoint end
    from finished d join finishing f on f.job = d.id
),
cleared as (  -- a failure ends the instance: all its jobs, timers included, are deleted
    delete from pgflow.jobs j
    where j.id = any (array(  -- in a lateral: joined by run, the planner could read all of the partial index by run
        select k.id from decided x cross join lateral (select j.id from pgflow.jobs j where j.run = x.run offset 0) k where x.fails))
),
born as (
    insert into pgflow.jobs (run, kind, step, config, queue, priority, max_attempts, solo, key, cost, state, worker, attempt)
    select
        b.run, b.kind, b.step, b.config::jsonb, b.queue, b.priority, b.max_attempts, false, p.key, coalesce(p.cost, 1::smallint),
        case when k.kept then 'running' else 'ready' end, case when k.kept then %(worker)s::bigint end,
        case b.kind  -- a route that is called again sees the attempt of its step
            when 'advance' then (select r.attempt from pgflow.step_results r where r.run = b.run and r.step = b.step)
            else k.kept::integer
        end
    from branches b
    join decided c on c.run = b.run
    left join lateral (  -- any other job of the instance has its partition key
        select nullif(j.key, '*') as key, j.cost from pgflow.jobs j where j.run = b.run order by j.run limit 1
    ) p on true
    cross join lateral (
        select b.keep and not exists (select from crowded w where w.queue = b.queue and w.priority = b.priority) as kept
    ) k
    where not c.fails
    returning id, run, step, state
),
changed as (
    update pgflow.instances i
    set revision = i.revision + 1,
        status = coalesce(g.status, i.status),
        metadata = case when g.metadata is null then i.metadata else i.metadata || g.metadata::jsonb end,
        error = coalesce(g.error::jsonb, i.error),
        finished_at = case when g.status in ('completed', 'failed') then pgflow.now() end
    from changes g join decided c on c.run = g.run
    where i.run = any (array[g.run])
),
hooked as materialized (  -- in the transaction of the end: exactly once
    select pgflow.instance_hook(g.run, g.status, g.error::jsonb, false) from changes g join decided c on c.run = g.run where g.hook
    union all
    select pgflow.task_hook(o.job, j.step, f.status, f.error::jsonb, false)
    from finishing f join owned o on o.job = f.job join pgflow.jobs j on j.id = any (array[o.job])
    where f.hook
),
consumed as (
    update pgflow.signals s set consumed_at = pgflow.now()
    from outcome o
    where s.id = any (array[o.signal]) and o.signal is not null and o.is_written
)
select
    o.id, o.run, o.step,
    case
        when o.is_written then 'done'
        when o.is_conflict then 'conflict'
        when o.is_ours or exists (  -- still ours in this snapshot, but another session had locked its row
            select from pgflow.jobs j
            where j.id = any (array[o.id]) and j.state || '' = 'running' and j.worker = %(worker)s::bigint
                and j.attempt = o.attempt and j.step = o.step and j.kind = o.kind
        ) then 'busy'
        else 'fenced'
    end as status,
    coalesce(o.kept, false) as kept,
    false as is_branch,
    false as is_awaited
from outcome o
where (select count(*) from hooked) >= 0  -- evaluates it
union all
select b.id, b.run, b.step, 'done', b.state = 'running', true, false from born b
union all
select
    f.job, null, null,
    case
        when o.job is not null then 'done'
        when exists (  -- as above
            select from pgflow.jobs j
            where j.id = any (array[f.job]) and j.state || '' = 'running' and j.worker = %(worker)s::bigint and j.attempt = f.attempt and j.kind = 'task'
        ) then 'busy'
        else 'fenced'
    end,
    false, false, (select exists (select from pgflow.waiters w where w.expires_at > pgflow.now()))
from finishing f left join owned o on o.job = f.job
where (select count(*) from hooked) >= 0
