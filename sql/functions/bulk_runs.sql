-- The actions of a bulk operation on one batch of runs. Each returns the runs that it did not change, with the reason; an instance that another
-- session has locked is one of them. Instances are locked in ascending order, like everywhere, and in a statement of their own: the next
-- one sees the jobs that the last holder of the lock committed.

-- Cancels the active instances among these.
create or replace function pgflow.cancel_runs(runs bigint[], reason text default null) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    locked bigint[];
    done bigint[];
    error jsonb := case when cancel_runs.reason is not null then jsonb_build_object('reason', cancel_runs.reason) end;
begin
    locked := array(select i.run from pgflow.instances i where i.run = any (cancel_runs.runs) order by i.run for no key update skip locked);
    done := array(select i.run from pgflow.instances i where i.run = any (locked) and i.status in ('pending', 'running', 'waiting') order by i.run);
    perform from pgflow.jobs j where j.run = any (done) order by j.id for update;
    perform pgflow.end_instance(d, 'cancelled', error) from unnest(done) d;  -- the one place that knows what an end involves
    return pgflow.skipped_runs(cancel_runs.runs, locked, done);
end
$$;

-- Retries the failed instances among these, as `retry_run` does, each the newest run of its business id; runs steps that are paused again.
create or replace function pgflow.retry_runs(runs bigint[], out skipped jsonb, out queues text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    locked bigint[];
    newer jsonb;
    chosen bigint[];
    done bigint[] := '{}';
    one bigint;
    paused pgflow.jobs;
    resumed bigint[] := '{}';
begin
    queues := '{}';
    -- Lock order: the business ids before the instances, as in a start. Both columns are immutable.
    perform pgflow.lock_business_ids(array(
        select i.id from pgflow.instances i where i.run = any (retry_runs.runs) and i.unique_key is not null and i.status = 'failed'));
    locked := array(select i.run from pgflow.instances i where i.run = any (retry_runs.runs) order by i.run for no key update skip locked);
    -- A newer run has taken over what an older one failed to do.
    select coalesce(jsonb_object_agg(x.run, format('run %s of %s is newer', x.newest, x.id)), '{}') into newer
    from (
        select i.run, i.id, (select max(o.run) from pgflow.instances o where o.id = i.id and o.unique_key = i.unique_key) as newest
        from pgflow.instances i where i.run = any (locked) and i.status = 'failed'
    ) x
    where x.newest > x.run;
    select newer || coalesce(jsonb_object_agg(x.run, format('run %s of %s is active', x.active, x.id)), '{}') into newer
    from (
        select i.run, i.id, pgflow.excluding_run(i.id, i.workflow, i.unique_key, i.run) as active
        from pgflow.instances i where i.run = any (locked) and i.status = 'failed' and i.unique_key is not null
    ) x
    where x.active is not null and not newer ? x.run::text;
    -- Steps that are paused for an operator run again.
    for paused in
        select j.* from pgflow.jobs j join pgflow.instances i on i.run = j.run
        where j.run = any (locked) and j.state = 'parked' and j.kind = 'execute' and i.status in ('running', 'waiting')
        order by j.id for no key update of j
    loop
        perform pgflow.run_paused_again(paused);
        resumed := resumed || paused.run;
        queues := queues || paused.queue;
    end loop;
    chosen := array(
        select i.run from pgflow.instances i where i.run = any (locked) and i.status = 'failed' and not newer ? i.run::text order by i.run);
    begin
        update pgflow.instances i set status = 'running', revision = i.revision + 1, error = null, finished_at = null, deadline = null where i.run = any (chosen);
        done := chosen;
    exception when unique_violation then  -- a start in between: of the batch, only the runs that conflict are left out
        foreach one in array chosen loop
            begin
                update pgflow.instances i set status = 'running', revision = i.revision + 1, error = null, finished_at = null, deadline = null where i.run = one;
                done := done || one;
            exception when unique_violation then
                newer := newer || jsonb_build_object(one, 'another run of its business id is active');
            end;
        end loop;
    end;
    update pgflow.step_results r set applied = true where r.run = any (done) and not r.applied;
    with born as (
        insert into pgflow.jobs (run, kind, step, queue, key, cost)
        select
            i.run, 'advance', '', coalesce(d.graph ->> 'orchestration_queue', d.graph #>> array['steps', d.graph ->> 'initial', 'queue'], 'default'),
            pgflow.job_key(d.graph, i.input), coalesce((d.graph ->> 'weight')::smallint, 1::smallint)
        from pgflow.instances i left join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
        where i.run = any (done)
        order by i.run
        returning queue
    )
    select array(select distinct q from unnest(queues || array_agg(b.queue)) q where q is not null) into queues from born b;
    skipped := pgflow.skipped_runs(retry_runs.runs, locked, done || resumed, newer);
end
$$;

-- Deletes the ended instances among these with all their rows.
create or replace function pgflow.delete_runs(runs bigint[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    locked bigint[];
    ended bigint[];
    skipped jsonb;
begin
    locked := array(select i.run from pgflow.instances i where i.run = any (delete_runs.runs) order by i.run for update skip locked);
    ended := array(select i.run from pgflow.instances i where i.run = any (locked) and i.finished_at is not null);
    skipped := pgflow.skipped_runs(delete_runs.runs, locked, ended);
    perform pgflow.prune_runs(ended);
    return skipped;
end
$$;

-- Changes the queue, the priority or the time of the live jobs of these instances, null leaves it as it is. A job that runs is not changed: its
-- worker decides what comes next. A queue and a time apply to jobs that a worker executes, not to waits.
create or replace function pgflow.change_jobs(
    runs bigint[], queue text, priority smallint, at timestamptz, out skipped jsonb, out queues text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    locked bigint[];
    done bigint[];
begin
    locked := array(
        select j.id from pgflow.jobs j
        where j.run = any (change_jobs.runs)
            and (j.state in ('ready', 'scheduled') or j.state = 'parked' and change_jobs.priority is not null)
            and (j.kind = 'execute' or change_jobs.queue is null)
            and (select true from pgflow.jobs seen where seen.ctid = j.ctid)  -- EvalPlanQual guard: claimed or moved after our snapshot
        order by j.id for no key update skip locked);
    with changed as (
        update pgflow.jobs j
        set queue = coalesce(change_jobs.queue, j.queue),
            priority = coalesce(change_jobs.priority, j.priority),
            run_at = coalesce(change_jobs.at, j.run_at),
            state = case when change_jobs.at is null then j.state when change_jobs.at > pgflow.now() then 'scheduled' else 'ready' end
        where j.id = any (locked)
        returning j.run, j.queue, j.state
    )
    select coalesce(array_agg(distinct c.run), '{}'), coalesce(array_agg(distinct c.queue) filter (where c.state = 'ready'), '{}')
    into done, queues from changed c;
    skipped := pgflow.skipped_runs(change_jobs.runs, change_jobs.runs, done, default_reason =>
        case when change_jobs.priority is null then 'no step of it waits for a worker' else 'its steps run now' end);
end
$$;

-- Returns the runs without those that are `done`, each with its business id and the reason. => [{"run", "id", "reason"}, ...]
create or replace function pgflow.skipped_runs(
    runs bigint[], locked bigint[], done bigint[], reasons jsonb default '{}', default_reason text default null
) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('run', g.run, 'id', i.id, 'reason', case
        when i.run is null then 'it was deleted in between'
        when skipped_runs.reasons ? g.run::text then skipped_runs.reasons ->> g.run::text
        when g.run <> all (skipped_runs.locked) then 'another session has locked it'
        when skipped_runs.default_reason is not null and i.status in ('pending', 'running', 'waiting') then skipped_runs.default_reason
        else 'it is ' || i.status
    end) order by g.run), '[]')
    from unnest(skipped_runs.runs) g (run)
    left join pgflow.instances i on i.run = g.run
    where g.run <> all (skipped_runs.done)
$$;

-- Not granted to PUBLIC or to any role: called by other functions only.
revoke all on function pgflow.cancel_runs(bigint[], text) from public;
revoke all on function pgflow.retry_runs(bigint[]) from public;
revoke all on function pgflow.delete_runs(bigint[]) from public;
revoke all on function pgflow.change_jobs(bigint[], text, smallint, timestamptz) from public;
revoke all on function pgflow.skipped_runs(bigint[], bigint[], bigint[], jsonb, text) from public;
