-- Reads the name and the status of a task, live or ended. Raises PF017 if there is none with this id, or it is another task than `task` (null: any).
create or replace function pgflow.task_status(id bigint, task text, out name text, out status text) returns record
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select f.name, f.status into name, status
    from (
        select j.step as name, case when j.state = 'running' then 'running' when j.attempt > 0 then 'waiting' else 'pending' end as status
        from pgflow.jobs j where j.id = task_status.id and j.kind = 'task'
        union all
        select r.task, r.status from pgflow.task_results r where r.id = task_status.id
    ) f
    where task_status.task is null or f.name = task_status.task;
    if not found then
        raise exception using errcode = 'PF017', message = format('there is no job %s of %s', task_status.id, coalesce('the task ' || task_status.task, 'a task')),
            hint = 'List them: pgflow job list';
    end if;
end
$$;

-- Ends tasks whose jobs the caller has locked: each job becomes a row of `task_results`, with its hook. For a retry the row keeps what a task
-- that ran to its end needs no more.
create or replace function pgflow.end_tasks(ids bigint[], status text, output jsonb, error jsonb, notify boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    with gone as (
        delete from pgflow.jobs j where j.id = any (end_tasks.ids) and j.kind = 'task' returning j.*
    )
    insert into pgflow.task_results (
        id, task, queue, status, priority, attempt, max_attempts, enqueued_at, worker, args, output, error, errors, tags, metadata, unique_key,
        key, cost, checkpoint)
    select
        g.id, g.step, g.queue, end_tasks.status, g.priority, g.attempt, g.max_attempts, g.enqueued_at, g.worker, g.args, end_tasks.output, end_tasks.error,
        g.errors, g.tags, g.metadata, g.unique_key, nullif(g.key, '*'), nullif(g.cost, 1), g.checkpoint
    from gone g
    order by g.id;
    perform pgflow.task_hook(r.id, r.task, r.status, r.error, end_tasks.notify)
    from (select e.* from pgflow.task_results e where e.id = any (end_tasks.ids) order by e.id) r;
    perform pg_notify(pgflow.ended_channel(), d::text) from unnest(end_tasks.ids) d  -- callers that wait for a result
    where exists (select from pgflow.waiters w where w.expires_at > pgflow.now());
end
$$;

-- Cancels a task that has not ended. The result of an attempt in flight is fenced off.
create or replace function pgflow.cancel_task(id bigint, reason text default null, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    job record;
begin
    select j.step, j.worker is not null as was_running into job from pgflow.jobs j
    where j.id = cancel_task.id and j.kind = 'task' and (cancel_task.task is null or j.step = cancel_task.task) for update;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(cancel_task.id, cancel_task.task) s;
        raise exception using errcode = 'PF005', message = format('job %s (%s) is %s: it cannot be cancelled', cancel_task.id, earlier.name, earlier.status),
            hint = 'Only a task that has not ended can be cancelled.';
    end if;
    perform pgflow.end_tasks(
        array[cancel_task.id], 'cancelled', null, case when cancel_task.reason is not null then jsonb_build_object('reason', cancel_task.reason) end,
        cancel_task.notify);
    perform pgflow.audit('cancel', jsonb_build_object('job', cancel_task.id, 'task', job.step, 'reason', cancel_task.reason));
    perform pgflow.answer(null);
    if notify and job.was_running then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
end
$$;

-- Runs a failed or cancelled task once more, under the same id and with all its attempts; runs one that waits for its next attempt now, and
-- one that waits for an operator with as many attempts more as the task has.
create or replace function pgflow.retry_task(id bigint, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    job record;
    violated text;
begin
    select r.queue, r.task into job from pgflow.rerun_jobs(array(
        select j.id from pgflow.jobs j
        where j.id = retry_task.id and j.kind = 'task' and (j.state = 'scheduled' and j.attempt > 0 or j.state = 'parked')
            and (retry_task.task is null or j.step = retry_task.task)
        for no key update)) r;
    if not found then
        begin
            select r.queue, r.task into job from pgflow.revive_jobs(array(
                select e.id from pgflow.task_results e
                where e.id = retry_task.id and e.status in ('failed', 'cancelled') and (retry_task.task is null or e.task = retry_task.task)
                for update)) r;
        exception when unique_violation then
            get stacked diagnostics violated = constraint_name;
            if violated <> 'jobs_unique' then  -- of a table that a user's trigger writes to
                raise;
            end if;
            raise exception using errcode = 'PF018', message = format('job %s cannot run again: another job with its unique key has not ended', retry_task.id),
                hint = 'Wait until that one has ended, or cancel it.';
        end;
    end if;
    if job.queue is null then
        select s.name, s.status into earlier from pgflow.task_status(retry_task.id, retry_task.task) s;
        raise exception using errcode = 'PF009',
            message = format('job %s (%s) is %s: only a failed, cancelled or waiting task can be retried', retry_task.id, earlier.name, earlier.status),
            hint = 'See its state: pgflow job show ' || retry_task.id;
    end if;
    perform pgflow.audit('retry', jsonb_build_object('job', retry_task.id, 'task', job.task));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), job.queue);
    end if;
end
$$;

-- Makes jobs ready that wait for their next attempt or for an operator, and that the caller has locked. Attempts are numbered on, so that no earlier
-- claim of a job can be mistaken for a new one. => their queues and tasks
create or replace function pgflow.rerun_jobs(ids bigint[]) returns table (id bigint, queue text, task text)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    update pgflow.jobs j
    set state = 'ready', run_at = pgflow.now(), parked_at = null,
        max_attempts = case when j.state <> 'parked' then j.max_attempts else least(32767, j.attempt + coalesce((
            select (t.options ->> 'max_attempts')::integer from pgflow.tasks t where t.name = j.step), j.max_attempts)) end
    where j.id = any (rerun_jobs.ids)
    returning j.id, j.queue, j.step
$$;

-- Moves tasks that have ended, and that the caller has locked, back to `jobs`, under the same ids and with all their attempts. => their queues and tasks
drop function if exists pgflow.revive_jobs(bigint[]);
create or replace function pgflow.revive_jobs(ids bigint[]) returns table (id bigint, queue text, task text)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from pgflow.task_results r where r.id = any (revive_jobs.ids) returning r.*
    )
    insert into pgflow.jobs (
        id, kind, step, queue, key, cost, priority, max_attempts, args, tags, metadata, enqueued_at, unique_key, errors, checkpoint)
    overriding system value
    select
        g.id, 'task', g.task, g.queue, g.key, coalesce(g.cost, 1::smallint), g.priority, g.max_attempts, g.args, g.tags, g.metadata, g.enqueued_at,
        g.unique_key, g.errors, g.checkpoint
    from gone g
    order by g.id
    returning id, queue, step
$$;

-- Locks and returns the job of a task that waits for an operator: its attempts are used up, and its policy is "pause". Raises PF005, PF017.
create or replace function pgflow.paused_task(id bigint, task text) returns pgflow.jobs
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job pgflow.jobs;
    earlier record;
begin
    select j.* into job from pgflow.jobs j
    where j.id = paused_task.id and j.kind = 'task' and j.state = 'parked' and (paused_task.task is null or j.step = paused_task.task) for update;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(paused_task.id, paused_task.task) s;
        raise exception using errcode = 'PF005',
            message = format('job %s (%s) is %s: it does not wait for an operator', paused_task.id, earlier.name, earlier.status),
            hint = 'Only a task whose attempts are used up, with the policy "pause", can be completed or failed.';
    end if;
    return job;
end
$$;

-- Completes a task that waits for an operator, with an output, as if it had run to its end.
create or replace function pgflow.complete_task(id bigint, output jsonb default null, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    job pgflow.jobs;
    fault text := pgflow.json_fault(output);
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'an output ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    job := pgflow.paused_task(complete_task.id, complete_task.task);
    perform pgflow.end_tasks(array[complete_task.id], 'completed', coalesce(complete_task.output, 'null'), null, complete_task.notify);
    perform pgflow.audit('complete', jsonb_build_object('job', complete_task.id, 'task', job.step));
    perform pgflow.answer(null);
end
$$;

-- Fails a task that waits for an operator; `pgflow.retry_task` can still retry it. Without a reason it is that of the last attempt.
create or replace function pgflow.fail_task(id bigint, reason text default null, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    job pgflow.jobs := pgflow.paused_task(fail_task.id, fail_task.task);
    error jsonb := job.errors -> -1;
begin
    if fail_task.reason is not null then
        error := jsonb_build_object('reason', fail_task.reason, 'type', 'FailedByOperator', 'attempt', job.attempt);
    end if;
    perform pgflow.end_tasks(array[fail_task.id], 'failed', null, error, fail_task.notify);
    perform pgflow.audit('fail', jsonb_build_object('job', fail_task.id, 'task', job.step, 'reason', fail_task.reason));
    perform pgflow.answer(null);
end
$$;

-- Moves a task that has not started, or waits for its next attempt, to another queue, priority or time; null changes nothing.
create or replace function pgflow.update_task(
    id bigint, queue text default null, priority smallint default null, at timestamptz default null, delay interval default null,
    task text default null, notify boolean default true
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    due timestamptz := coalesce(update_task.at, pgflow.now() + update_task.delay);
    moved record;
begin
    if update_task.queue !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' then
        raise exception using errcode = 'PF008', message = format('%L is not a valid queue', left(update_task.queue, 100)),
            hint = 'A queue has 1 to 63 letters, digits, underscores, dots and hyphens.';
    end if;
    update pgflow.jobs j
    set queue = coalesce(update_task.queue, j.queue), priority = coalesce(update_task.priority, j.priority), run_at = coalesce(due, j.run_at),
        state = case when due > pgflow.now() then 'scheduled' when due is not null then 'ready' else j.state end
    where j.id = update_task.id and j.kind = 'task' and j.state in ('ready', 'scheduled') and (update_task.task is null or j.step = update_task.task)
    returning j.queue, j.step into moved;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(update_task.id, update_task.task) s;
        raise exception using
            errcode = case when earlier.status in ('pending', 'running', 'waiting') then 'PF019' else 'PF005' end,
            message = format('job %s (%s) is %s: it cannot be moved', update_task.id, earlier.name, earlier.status),
            hint = case when earlier.status = 'waiting' then 'It waits for an operator: retry it, complete it or fail it.'
                else 'Only a task that waits can be moved.' end;
    end if;
    perform pgflow.audit(
        case when due is null then 'move' when update_task.delay = interval '0' then 'run now' else 'reschedule' end,
        jsonb_strip_nulls(jsonb_build_object('job', update_task.id, 'task', moved.step, 'queue', update_task.queue, 'priority', update_task.priority, 'at', due)));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), moved.queue);
    end if;
end
$$;

-- Deletes a task that does not run, also one that has ended.
create or replace function pgflow.delete_task(id bigint, task text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    name text;
begin
    perform from pgflow.jobs j
    where j.id = delete_task.id and j.kind = 'task' and j.state <> 'running' and (delete_task.task is null or j.step = delete_task.task) for update;
    if not found then
        perform from pgflow.task_results r where r.id = delete_task.id and (delete_task.task is null or r.task = delete_task.task) for update;
    end if;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(delete_task.id, delete_task.task) s;
        raise exception using errcode = 'PF019', message = format('job %s (%s) is %s: it cannot be deleted', delete_task.id, earlier.name, earlier.status),
            hint = 'Cancel it first.';
    end if;
    select d.name into name from pgflow.task_status(delete_task.id, null) d;
    perform pgflow.delete_tasks(array[delete_task.id]);
    perform pgflow.audit('delete', jsonb_build_object('job', delete_task.id, 'task', name));
    perform pgflow.answer(null);
end
$$;

-- Deletes tasks that the caller has locked, live and ended, and returns how many. Their objects in a payload store follow.
create or replace function pgflow.delete_tasks(ids bigint[]) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with stale as (
        insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)
        select p.task, p.instance, p.kind, '', p.reference from pgflow.task_references(delete_tasks.ids) p
    ),
    live as (
        delete from pgflow.jobs j where j.id = any (delete_tasks.ids) and j.kind = 'task' returning 1
    ),
    ended as (
        delete from pgflow.task_results r where r.id = any (delete_tasks.ids) returning 1
    )
    select (select count(*) from live) + (select count(*) from ended)
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.task_status(bigint, text) from public;
revoke all on function pgflow.cancel_task(bigint, text, text, boolean) from public;
revoke all on function pgflow.retry_task(bigint, text, boolean) from public;
revoke all on function pgflow.update_task(bigint, text, smallint, timestamptz, interval, text, boolean) from public;
revoke all on function pgflow.delete_task(bigint, text) from public;
revoke all on function pgflow.complete_task(bigint, jsonb, text, boolean) from public;
revoke all on function pgflow.fail_task(bigint, text, text, boolean) from public;
revoke all on function pgflow.paused_task(bigint, text) from public;
revoke all on function pgflow.end_tasks(bigint[], text, jsonb, jsonb, boolean) from public;
revoke all on function pgflow.rerun_jobs(bigint[]) from public;
revoke all on function pgflow.revive_jobs(bigint[]) from public;
revoke all on function pgflow.delete_tasks(bigint[]) from public;
