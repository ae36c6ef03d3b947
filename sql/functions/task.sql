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

-- Cancels a task that has not ended: its job becomes a row of `task_results`. The result of an attempt in flight is fenced off.
create or replace function pgflow.cancel_task(id bigint, reason text default null, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    ended_task record;
begin
    with gone as (
        delete from pgflow.jobs j
        where j.id = cancel_task.id and j.kind = 'task' and (cancel_task.task is null or j.step = cancel_task.task)
        returning j.*
    ),
    ended as (
        insert into pgflow.task_results (
            id, task, queue, status, priority, attempt, max_attempts, enqueued_at, worker, args, error, errors, tags, metadata, unique_key)
        select
            g.id, g.step, g.queue, 'cancelled', g.priority, g.attempt, g.max_attempts, g.enqueued_at, g.worker, g.args,
            case when cancel_task.reason is not null then jsonb_build_object('reason', cancel_task.reason) end, g.errors, g.tags, g.metadata, g.unique_key
        from gone g
    )
    select g.worker is not null as was_running, g.step into ended_task from gone g;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(cancel_task.id, cancel_task.task) s;
        raise exception using errcode = 'PF005', message = format('job %s (%s) is %s: it cannot be cancelled', cancel_task.id, earlier.name, earlier.status),
            hint = 'Only a task that has not ended can be cancelled.';
    end if;
    perform pgflow.task_hook(
        cancel_task.id, ended_task.step, 'cancelled', case when cancel_task.reason is not null then jsonb_build_object('reason', cancel_task.reason) end,
        cancel_task.notify);
    perform pgflow.answer(null);
    perform pg_notify(pgflow.ended_channel(), cancel_task.id::text) where exists (select from pgflow.waiters w where w.expires_at > pgflow.now());
    if notify and ended_task.was_running then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
end
$$;

-- Runs a failed or cancelled task once more, under the same id and with all its attempts; runs one that waits for its next attempt now.
create or replace function pgflow.retry_task(id bigint, task text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    earlier record;
    target text;
    violated text;
begin
    update pgflow.jobs j set state = 'ready', run_at = pgflow.now()
    where j.id = retry_task.id and j.kind = 'task' and j.state = 'scheduled' and j.attempt > 0
        and (retry_task.task is null or j.step = retry_task.task)
    returning j.queue into target;
    if not found then
        begin
            with gone as (
                delete from pgflow.task_results r
                where r.id = retry_task.id and r.status in ('failed', 'cancelled') and (retry_task.task is null or r.task = retry_task.task)
                returning r.*
            ),
            revived as (
                insert into pgflow.jobs (
                    id, kind, step, queue, key, cost, priority, max_attempts, args, tags, metadata, enqueued_at, unique_key, errors)
                overriding system value
                select
                    g.id, 'task', g.task, g.queue, pgflow.job_key(t.options, g.args), coalesce((t.options ->> 'weight')::smallint, 1::smallint), g.priority, g.max_attempts, g.args, g.tags, g.metadata, g.enqueued_at, g.unique_key, g.errors
                from gone g left join pgflow.tasks t on t.name = g.task
            )
            select g.queue into target from gone g;
        exception when unique_violation then
            get stacked diagnostics violated = constraint_name;
            if violated <> 'jobs_unique' then  -- of a table that a user's trigger writes to
                raise;
            end if;
            raise exception using errcode = 'PF018', message = format('job %s cannot run again: another job with its unique key has not ended', retry_task.id),
                hint = 'Wait until that one has ended, or cancel it.';
        end;
    end if;
    if target is null then
        select s.name, s.status into earlier from pgflow.task_status(retry_task.id, retry_task.task) s;
        raise exception using errcode = 'PF009',
            message = format('job %s (%s) is %s: only a failed, cancelled or waiting task can be retried', retry_task.id, earlier.name, earlier.status),
            hint = 'See its state: pgflow job show ' || retry_task.id;
    end if;
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), target);
    end if;
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
    target text;
begin
    if update_task.queue !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' then
        raise exception using errcode = 'PF008', message = format('%L is not a valid queue', left(update_task.queue, 100)),
            hint = 'A queue has 1 to 63 letters, digits, underscores, dots and hyphens.';
    end if;
    update pgflow.jobs j
    set queue = coalesce(update_task.queue, j.queue), priority = coalesce(update_task.priority, j.priority), run_at = coalesce(due, j.run_at),
        state = case when due > pgflow.now() then 'scheduled' when due is not null then 'ready' else j.state end
    where j.id = update_task.id and j.kind = 'task' and j.state in ('ready', 'scheduled') and (update_task.task is null or j.step = update_task.task)
    returning j.queue into target;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(update_task.id, update_task.task) s;
        raise exception using
            errcode = case when earlier.status in ('pending', 'running', 'waiting') then 'PF019' else 'PF005' end,
            message = format('job %s (%s) is %s: it cannot be moved', update_task.id, earlier.name, earlier.status),
            hint = 'Only a task that waits can be moved.';
    end if;
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), target);
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
begin
    delete from pgflow.jobs j
    where j.id = delete_task.id and j.kind = 'task' and j.state <> 'running' and (delete_task.task is null or j.step = delete_task.task);
    if not found then
        delete from pgflow.task_results r where r.id = delete_task.id and (delete_task.task is null or r.task = delete_task.task);
    end if;
    if not found then
        select s.name, s.status into earlier from pgflow.task_status(delete_task.id, delete_task.task) s;
        raise exception using errcode = 'PF019', message = format('job %s (%s) is %s: it cannot be deleted', delete_task.id, earlier.name, earlier.status),
            hint = 'Cancel it first.';
    end if;
    perform pgflow.answer(null);
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.task_status(bigint, text) from public;
revoke all on function pgflow.cancel_task(bigint, text, text, boolean) from public;
revoke all on function pgflow.retry_task(bigint, text, boolean) from public;
revoke all on function pgflow.update_task(bigint, text, smallint, timestamptz, interval, text, boolean) from public;
revoke all on function pgflow.delete_task(bigint, text) from public;
