-- Claims ready jobs: up to the capacity of each queue, and one quarantined job. => id, kind, run, step, config, queue, priority, attempt, max_attempts, crashes, solo, awaits, errors, business_id, workflow, version, status, revision, input (of a task: its arguments), metadata, results, signals, parked, tags, waited (seconds since the job parked, null: it has not), age (seconds since the instance was created, or the task enqueued), key, moment (run_at, in seconds of the epoch), took (seconds of this statement), expires_in (seconds until it expires), checkpoint
-- (priority, moment, id) is the watermark of a queue, where its index scan starts. The scan skips the entries before it: this worker has
-- claimed the live ones, and the rest are dead tuples that vacuum cannot remove yet (worker/turns/watermark.py).
with admissible as materialized (  -- the queues that may be claimed from; settle.sql asks the same before it keeps a job
    select q.*
    from unnest(
        %(queues)b::text[], %(capacities)b::integer[], %(priorities)b::smallint[], %(moments)b::double precision[], %(ids)b::bigint[]
    ) as q (name, capacity, priority, moment, id)
    where not exists (select from pgflow.queues p where p.name = q.name and (p.paused_at is not null or p.is_limited))
),
taken as materialized (  -- materialized: the planner must not run the limit twice
    select t.id
    from admissible q
    cross join lateral (  -- one index range per queue; `queue = any(...)` would sort every ready row
        select j.id
        from pgflow.jobs j
        where j.state = 'ready' and j.key is null and j.queue = q.name and (j.priority, j.run_at, j.id) > (q.priority, to_timestamp(q.moment), q.id)
            and j.crashes not between 2 and 4
            -- EvalPlanQual guard: skip rows updated after our snapshot. The lock would return their new version, but the rest of the
            -- statement reads the snapshot.
            and (select true from pgflow.jobs seen where seen.ctid = j.ctid)
        order by j.priority, j.run_at, j.id
        limit q.capacity
        for no key update of j skip locked
    ) t
),
quarantined as materialized (  -- possible poison job, which the worker runs alone; the partial index on them is nearly empty
    select j.id
    from pgflow.jobs j
    where j.state = 'ready' and j.key is null and j.crashes between 2 and 4 and j.queue = any (array(select q.name from admissible q))
        and (select true from pgflow.jobs seen where seen.ctid = j.ctid)
    order by j.run_at, j.id
    limit 1
    for no key update of j skip locked
),
claimed as (
    update pgflow.jobs j
    set state = 'running', worker = %(worker)s::bigint, attempt = j.attempt + (j.kind in ('execute', 'task'))::integer
    where j.id = any (array(select t.id from taken t union all select s.id from quarantined s))  -- by primary key, however many rows the planner expects of `taken`
    returning j.id, j.kind, j.run, j.step, j.config, j.queue, j.priority, j.run_at, j.attempt, j.max_attempts, j.crashes, j.solo, j.awaits, j.errors, j.parked_at, j.key,
        j.args, j.tags, j.metadata, j.enqueued_at, j.expires_at, j.checkpoint
),
limited as materialized (  -- claimed earlier in this transaction, by job/claim_limited: our snapshot, which is later, shows what they build on
    select
        j.id, j.kind, j.run, j.step, j.config, j.queue, j.priority, j.run_at, j.attempt, j.max_attempts, j.crashes, j.solo, j.awaits, j.errors, j.parked_at, j.key,
        j.args, j.tags, j.metadata, j.enqueued_at, j.expires_at, j.checkpoint
    from pgflow.jobs j
    where j.id = any (nullif(current_setting('pgflow_claim.ids', true), '')::bigint[]) and j.state || '' = 'running' and j.worker = %(worker)s::bigint
),
numbered as (
    select c.*, row_number() over (partition by c.run order by c.priority, c.run_at, c.id) as nth
    from (select * from claimed union all select * from limited) c
)
-- The instance's data come once per run, with its first job. `= any (array[...])` forces an index lookup per row, whatever size the planner
-- expects of the table (sql/README.md). JSON is returned as text, so that one corrupt payload cannot fail the whole batch.
select
    n.id, n.kind, n.run, n.step, n.config::text, n.queue, n.priority, n.attempt, n.max_attempts, n.crashes, n.solo, n.awaits::text, n.errors::text,
    i.id as business_id, i.workflow, i.version, i.status, i.revision,
    coalesce(i.input, n.args)::text as input, coalesce(i.metadata, n.metadata)::text as metadata,
    case when i.run is not null then (
        select json_agg(json_build_array(r.step, r.event, r.targets, r.output, r.output is not null, r.metadata, r.applied) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) end as results,
    case when i.run is not null then (
        select json_agg(json_build_array(s.id, s.step, s.name, s.payload, s.payload is not null) order by s.id)::text
        from pgflow.signals s where s.run = i.run and s.consumed_at is null
    ) end as signals,
    case when not n.solo then (
        select array_agg(p.step) from pgflow.jobs p where p.run = i.run and p.state = 'parked'
    ) end as parked,
    n.tags,
    case when isfinite(n.parked_at) then extract(epoch from pgflow.now() - n.parked_at)::double precision end as waited,
    case when isfinite(coalesce(i.created_at, n.enqueued_at)) then
        extract(epoch from pgflow.now() - coalesce(i.created_at, n.enqueued_at))::double precision
    end as age,
    n.key,
    extract(epoch from n.run_at)::double precision as moment,
    extract(epoch from clock_timestamp() - statement_timestamp())::double precision as took,
    extract(epoch from n.expires_at - pgflow.now())::double precision as expires_in, n.checkpoint::text
from numbered n
left join pgflow.instances i on i.run = any (array[n.run]) and n.nth = 1
order by n.priority, n.run_at, n.id
