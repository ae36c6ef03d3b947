-- The actions of a bulk operation on one batch of tasks, by the ids of their jobs; as bulk_runs.sql for instances. Each returns the tasks that it
-- did not change, with the reason. Rows that another session has locked are skipped.

-- Cancels the live tasks among these: their jobs become rows of `task_results`, as in `cancel_task`.
create or replace function pgflow.cancel_jobs(ids bigint[], reason text default null) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    locked bigint[];
begin
    locked := array(
        select j.id from pgflow.jobs j where j.id = any (cancel_jobs.ids) and j.kind = 'task' order by j.id for update skip locked);
    perform pgflow.end_tasks(
        locked, 'cancelled', null, case when cancel_jobs.reason is not null then jsonb_build_object('reason', cancel_jobs.reason) end, true);
    return pgflow.skipped_tasks(cancel_jobs.ids, locked);
end
$$;

-- Runs the failed and cancelled tasks among these once more, and those that wait for their next attempt or for an operator now, as `retry_task` does.
create or replace function pgflow.retry_jobs(ids bigint[], out skipped jsonb, out queues text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    waiting bigint[];
    locked bigint[];
    taken bigint[];
    done bigint[] := '{}';
    one bigint;
begin
    waiting := array(
        select j.id from pgflow.jobs j
        where j.id = any (retry_jobs.ids) and j.kind = 'task' and (j.state = 'scheduled' and j.attempt > 0 or j.state = 'parked')
            and (select true from pgflow.jobs seen where seen.ctid = j.ctid)  -- EvalPlanQual guard, as in claim.sql
        order by j.id for no key update skip locked);
    perform pgflow.rerun_jobs(waiting);
    locked := array(
        select r.id from pgflow.task_results r
        where r.id = any (retry_jobs.ids) and r.status in ('failed', 'cancelled') order by r.id for update skip locked);
    -- Of a unique key only the newest can run, and none while another job has it.
    taken := array(
        select r.id from pgflow.task_results r
        where r.id = any (locked) and r.unique_key is not null and (
            exists (select from pgflow.jobs j where j.unique_key = r.unique_key)
            or exists (select from pgflow.task_results o where o.id = any (locked) and o.unique_key = r.unique_key and o.id > r.id)));
    begin
        perform pgflow.revive_jobs(array(select l from unnest(locked) l where l <> all (taken)));
        done := array(select l from unnest(locked) l where l <> all (taken));
    exception when unique_violation then  -- an enqueue in between
        foreach one in array locked loop
            begin
                if one <> all (taken) then
                    perform pgflow.revive_jobs(array[one]);
                    done := done || one;
                end if;
            exception when unique_violation then
                taken := taken || one;
            end;
        end loop;
    end;
    select coalesce(array_agg(distinct j.queue), '{}') into queues from pgflow.jobs j where j.id = any (done || waiting);
    skipped := pgflow.skipped_tasks(retry_jobs.ids, done || waiting, taken);
end
$$;

-- Changes the queue, the priority or the time of the tasks among these that wait, null leaves it as it is.
create or replace function pgflow.change_tasks(
    ids bigint[], queue text, priority smallint, at timestamptz, out skipped jsonb, out queues text[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    locked bigint[];
begin
    locked := array(
        select j.id from pgflow.jobs j
        where j.id = any (change_tasks.ids) and j.kind = 'task' and j.state in ('ready', 'scheduled')
            and (select true from pgflow.jobs seen where seen.ctid = j.ctid)
        order by j.id for no key update skip locked);
    with changed as (
        update pgflow.jobs j
        set queue = coalesce(change_tasks.queue, j.queue),
            priority = coalesce(change_tasks.priority, j.priority),
            run_at = coalesce(change_tasks.at, j.run_at),
            state = case when change_tasks.at is null then j.state when change_tasks.at > pgflow.now() then 'scheduled' else 'ready' end
        where j.id = any (locked)
        returning j.queue, j.state
    )
    select coalesce(array_agg(distinct c.queue) filter (where c.state = 'ready'), '{}') into queues from changed c;
    skipped := pgflow.skipped_tasks(change_tasks.ids, locked);
end
$$;

-- Deletes the ended tasks among these.
create or replace function pgflow.delete_results(ids bigint[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    locked bigint[];
begin
    locked := array(select r.id from pgflow.task_results r where r.id = any (delete_results.ids) order by r.id for update skip locked);
    perform pgflow.delete_tasks(locked);
    return pgflow.skipped_tasks(delete_results.ids, locked);
end
$$;

-- Returns the tasks without those that are `done`, each with its name and the reason. => [{"job", "id", "reason"}, ...]
create or replace function pgflow.skipped_tasks(ids bigint[], done bigint[], taken bigint[] default '{}') returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('job', g.id, 'id', coalesce(j.step, r.task), 'reason', case
        when g.id = any (skipped_tasks.taken) then 'another job with its unique key is live or newer'
        when j.id is not null then case when j.state = 'parked' then 'it waits for an operator' else 'it is ' || case when j.state = 'running' then 'running' when j.attempt > 0 then 'waiting' else 'pending' end end
        when r.id is not null then 'it is ' || r.status
        else 'it was deleted in between'
    end) order by g.id), '[]')
    from unnest(skipped_tasks.ids) g (id)
    left join pgflow.jobs j on j.id = g.id
    left join pgflow.task_results r on r.id = g.id
    where g.id <> all (skipped_tasks.done)
$$;

-- Not granted to PUBLIC or to any role: called by other functions only.
revoke all on function pgflow.cancel_jobs(bigint[], text) from public;
revoke all on function pgflow.retry_jobs(bigint[]) from public;
revoke all on function pgflow.change_tasks(bigint[], text, smallint, timestamptz) from public;
revoke all on function pgflow.delete_results(bigint[]) from public;
revoke all on function pgflow.skipped_tasks(bigint[], bigint[], bigint[]) from public;
