-- Records what a batch of tokens came to: results in, tokens moved, parked, split or deleted, instances changed. => what, id, run, step, status, kept
-- Three arrays of rows come in: d, the tokens; g, the instances that they change ("guarded"); f, the branches that a fan-out adds.
-- Locks: instances, then tokens, both skipping what somebody holds, so this statement waits for nobody and nobody deadlocks with it.
-- Joins by `= any (array[...])`, conditions in `nullif(..., false) is not null`: each row by a look into its table's key, whatever the planner takes the
-- table's size to be. And `series`: the rows that come in are many, whatever it takes their number to be (sql/README.md).
-- status: done | conflict (the instance is held or has moved on: the result stands, an advance token will fold it in) |
--         busy (send it again) | fenced (the token is not this worker's any more: nothing was written).
with d as materialized (
    select d.*
    from unnest(
        %(id)b::bigint[], %(run)b::bigint[], %(attempt)b::integer[], %(step)b::text[], %(kind)b::text[], %(op)b::text[], %(guarded)b::boolean[],
        %(event)b::text[], %(targets)b::text[], %(output)b::text[], %(metadata)b::text[], %(errors)b::text[], %(seconds)b::double precision[],
        %(stored)b::boolean[], %(signal)b::bigint[],
        %(next_step)b::text[], %(next_config)b::text[], %(next_queue)b::text[], %(next_priority)b::smallint[], %(next_max)b::smallint[],
        %(next_solo)b::boolean[], %(keep)b::boolean[],
        %(delay)b::double precision[], %(backoff)b::text[], %(base)b::double precision[], %(cap)b::double precision[], %(jitter)b::double precision[],
        %(awaits)b::text[], %(orchestration)b::text[]
    ) as d (
        id, run, attempt, step, kind, op, guarded,
        event, targets, output, metadata, errors, seconds,
        stored, signal,
        next_step, next_config, next_queue, next_priority, next_max,
        next_solo, keep,
        delay, backoff, base, cap, jitter,
        awaits, orchestration
    ), generate_series(1, 100) as series where series < 2
),
g as materialized (
    select g.*
    from unnest(
        %(g_run)b::bigint[], %(g_revision)b::integer[], %(g_status)b::text[], %(g_metadata)b::text[], %(g_error)b::text[]
    ) as g (run, revision, status, metadata, error), generate_series(1, 100) as series where series < 2
),
f as materialized (
    select f.*
    from unnest(
        %(f_run)b::bigint[], %(f_step)b::text[], %(f_config)b::text[], %(f_queue)b::text[], %(f_priority)b::smallint[], %(f_max)b::smallint[],
        %(f_keep)b::boolean[], %(f_kind)b::text[]
    ) as f (run, step, config, queue, priority, max_attempts, keep, kind), generate_series(1, 100) as series where series < 2
),
held as materialized (  -- a decision holds only for the revision it was made on; null: it holds for any (a failure)
    select i.run
    from pgflow.instances i join g on i.run = any (array[g.run])
    where nullif(i.status in ('pending', 'running', 'waiting') and (g.revision is null or i.revision = g.revision), false) is not null
    order by g.run
    for no key update of i skip locked
),
fenced as materialized (
    select d.*
    from d join pgflow.jobs j on j.id = any (array[d.id])
    where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt and j.step = d.step and j.kind = d.kind, false) is not null
        and (select count(*) from held) >= 0  -- evaluated first: instances are locked before tokens
    order by d.id
    for no key update of j skip locked
),
decided as materialized (  -- one decision was made over all of an instance's tokens in the batch: all of them or none
    select h.run
    from held h
    where not exists (select from d where d.run = h.run and d.guarded and not exists (select from fenced x where x.id = d.id))
),
crowded as materialized (  -- where a token may not simply go on: something more urgent waits, or the queue is paused
    select k.queue, k.priority
    from (select next_queue, next_priority from d where keep union select queue, priority from f where keep) k (queue, priority)
    where exists (select from pgflow.jobs r where r.state = 'ready' and r.queue = k.queue and r.priority < k.priority)
        or exists (select from pgflow.queues p where p.name = k.queue and p.paused_at is not null)
),
outcome as materialized (
    select
        x.*,
        case when not x.guarded or c.run is not null then 'done' when x.op = 'fail' then 'busy' else 'conflict' end as status,
        case when not x.guarded or c.run is not null then x.op when x.op = 'fail' then null when x.event is null or x.signal is not null then 'reconsider' else 'fold' end as fate,
        x.keep and not exists (select from crowded w where w.queue = x.next_queue and w.priority = x.next_priority) as kept
    from fenced x left join decided c on c.run = x.run
),
results as (
    insert into pgflow.step_results (run, step, event, targets, output, metadata, errors, attempt, worker, applied, started_at)
    select
        o.run, o.step, o.event, case when o.targets is not null then array(select jsonb_array_elements_text(o.targets::jsonb)) end,
        o.output::jsonb, o.metadata::jsonb, o.errors::jsonb, o.attempt, %(worker)s::bigint,
        o.status = 'done' and o.op <> 'fail',  -- a route failed: the result is recorded, and after pgflow.retry the route is called again
        pgflow.now() - make_interval(secs => o.seconds)
    from outcome o
    where o.event is not null and not o.stored and (o.status = 'done' or o.fate = 'fold')
    order by o.id
),
folded as (
    update pgflow.step_results r
    set applied = true,
        targets = case when o.targets is null then r.targets else array(select jsonb_array_elements_text(o.targets::jsonb)) end
    from outcome o
    where o.stored and o.status = 'done' and o.op <> 'fail' and r.run = any (array[o.run]) and r.step = o.step
),
failing as materialized (
    select c.run from decided c join g on g.run = c.run where nullif(g.status = 'failed', false) is not null
),
moved as (
    update pgflow.jobs j
    set kind = case o.fate when 'move' then 'execute' when 'park' then 'resume' when 'fold' then 'advance' when 'reconsider' then 'advance' else j.kind end,
        step = case o.fate when 'move' then o.next_step else j.step end,
        config = case o.fate when 'move' then o.next_config::jsonb else j.config end,
        queue = case when o.fate = 'move' then o.next_queue when o.fate in ('park', 'fold', 'reconsider') then coalesce(o.orchestration, j.queue) else j.queue end,
        priority = case o.fate when 'move' then o.next_priority else j.priority end,
        max_attempts = case o.fate when 'move' then o.next_max else j.max_attempts end,
        solo = case o.fate when 'move' then o.next_solo else j.solo end,
        state = case
            when o.fate = 'move' and o.kept then 'running'
            when o.fate = 'park' then 'parked'
            when o.fate in ('retry', 'snooze') or (o.status = 'conflict' and o.kind = 'advance') then 'scheduled'
            else 'ready'
        end,
        worker = case when o.fate = 'move' and o.kept then j.worker end,
        attempt = case
            when o.fate = 'move' then o.kept::integer
            when o.fate in ('snooze', 'release') and o.kind = 'execute' then j.attempt - 1  -- not the step's fault
            else j.attempt
        end,
        crashes = case when o.fate in ('move', 'park', 'fold') then 0 else j.crashes end,  -- the step has run, and its worker lives
        run_at = case
            when o.fate = 'move' and o.kept then j.run_at  -- no indexed column changes: the row moves in place
            when o.fate = 'retry' then pgflow.now() + pgflow.backoff(o.backoff, o.base, o.cap, o.jitter, o.attempt, random())
            when o.fate in ('park', 'snooze') then pgflow.now() + make_interval(secs => o.delay)
            when o.status = 'conflict' and o.kind = 'advance' then pgflow.now() + interval '25 milliseconds'
            else pgflow.now()
        end,
        awaits = case when o.fate in ('park', 'reconsider') then o.awaits::jsonb when o.fate in ('move', 'fold') then null else j.awaits end,
        parked_at = case o.fate when 'park' then pgflow.now() when 'move' then null else j.parked_at end,
        errors = case when o.fate in ('move', 'park', 'fold') then null else coalesce(o.errors::jsonb, j.errors) end
    from outcome o
    where j.id = any (array[o.id]) and o.fate in ('move', 'park', 'retry', 'snooze', 'release', 'fold', 'reconsider')
        and o.run not in (select run from failing)
),
ended as (
    delete from pgflow.jobs j
    using outcome o
    where j.id = any (array[o.id]) and o.fate = 'end' and o.run not in (select run from failing)
),
cleared as (  -- a failure ends the instance: siblings and timers with it
    delete from pgflow.jobs j using failing x where j.run = any (array[x.run])
),
born as (
    insert into pgflow.jobs (run, kind, step, config, queue, priority, max_attempts, solo, state, worker, attempt)
    select
        f.run, f.kind, f.step, f.config::jsonb, f.queue, f.priority, f.max_attempts, false,
        case when k.kept then 'running' else 'ready' end, case when k.kept then %(worker)s::bigint end,
        case f.kind  -- a route that is called again sees the attempt of its step
            when 'advance' then (select r.attempt from pgflow.step_results r where r.run = f.run and r.step = f.step)
            else k.kept::integer
        end
    from f
    join decided c on c.run = f.run
    cross join lateral (
        select f.keep and not exists (select from crowded w where w.queue = f.queue and w.priority = f.priority) as kept
    ) k
    where f.run not in (select run from failing)
    returning id, run, step, state
),
changed as (
    update pgflow.instances i
    set revision = i.revision + 1,
        status = coalesce(g.status, i.status),
        metadata = case when g.metadata is null then i.metadata else i.metadata || g.metadata::jsonb end,
        error = coalesce(g.error::jsonb, i.error),
        finished_at = case when g.status in ('completed', 'failed') then pgflow.now() end
    from g join decided c on c.run = g.run
    where i.run = any (array[g.run])
),
consumed as (
    update pgflow.signals s set consumed_at = pgflow.now()
    from outcome o
    where s.id = any (array[o.signal]) and o.status = 'done'
)
select
    'token' as what, d.id, d.run, d.step,
    case
        when o.id is not null then o.status
        when exists (  -- still ours in this snapshot, but somebody held its row
            select from pgflow.jobs j
            where j.id = any (array[d.id]) and j.state || '' = 'running' and j.worker = %(worker)s::bigint and j.attempt = d.attempt and j.step = d.step and j.kind = d.kind
        ) then 'busy'
        else 'fenced'
    end as status,
    coalesce(o.kept, false) as kept
from d left join outcome o on o.id = d.id
union all
select 'branch', b.id, b.run, b.step, 'done', b.state = 'running' from born b
