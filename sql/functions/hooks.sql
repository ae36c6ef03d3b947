-- Hooks: tasks that are enqueued in the transaction in which an instance or a task ends, so each end has its hook exactly once. The task gets one
-- argument, `end`: {"kind": "workflow" | "task", "run" and "id" or "job", "workflow" and "version" or "task", "status", "error", "at"}.

-- Enqueues a hook's task, if it is registered here: an unknown one must not keep anything from ending.
create or replace function pgflow.enqueue_hook(hook text, ended jsonb, notify boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    once text := coalesce(current_setting('pgflow_once.key', true), '');
begin
    if not exists (select from pgflow.tasks t where t.name = enqueue_hook.hook) then
        raise warning 'the task % of a hook is not registered', quote_literal(enqueue_hook.hook);
        return;
    end if;
    perform set_config('pgflow_once.key', '', true);  -- the answer of the caller's request is not that of this enqueue
    perform pgflow.enqueue(enqueue_hook.hook, jsonb_build_object('end', ended), notify => enqueue_hook.notify);
    perform set_config('pgflow_once.key', once, true);
end
$$;

-- Enqueues the hook of a workflow for an instance that ends with this status, if it has one. The error comes without traces and earlier attempts.
create or replace function pgflow.instance_hook(run bigint, status text, error jsonb, notify boolean) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
begin
    select i.id, i.workflow, i.version, d.graph #>> array['hooks', h.name] as hook into instance
    from pgflow.instances i
    join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
    cross join (values (case instance_hook.status when 'completed' then 'success' when 'failed' then 'failure' else 'cancel' end)) as h (name)
    where i.run = instance_hook.run;
    if instance.hook is not null then
        perform pgflow.enqueue_hook(instance.hook, jsonb_build_object(
            'kind', 'workflow', 'run', instance_hook.run, 'id', instance.id, 'workflow', instance.workflow, 'version', instance.version,
            'status', instance_hook.status, 'error', instance_hook.error - array['attempts', 'trace', 'checkpoint'], 'at', pgflow.now()), instance_hook.notify);
    end if;
end
$$;

-- Enqueues the hook of a task for a job that ends with this status, if it has one.
create or replace function pgflow.task_hook(job bigint, task text, status text, error jsonb, notify boolean) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    hook text := (
        select t.options #>> array['hooks', case task_hook.status when 'completed' then 'success' when 'failed' then 'failure' else 'cancel' end]
        from pgflow.tasks t where t.name = task_hook.task);
begin
    if hook is not null then
        perform pgflow.enqueue_hook(hook, jsonb_build_object(
            'kind', 'task', 'job', task_hook.job, 'task', task_hook.task, 'status', task_hook.status,
            'error', task_hook.error - array['attempts', 'trace'], 'at', pgflow.now()), task_hook.notify);
    end if;
end
$$;

-- Not granted to PUBLIC: the settle of a worker calls the last two, other functions all of them.
revoke all on function pgflow.enqueue_hook(text, jsonb, boolean) from public;
revoke all on function pgflow.instance_hook(bigint, text, jsonb, boolean) from public;
revoke all on function pgflow.task_hook(bigint, text, text, jsonb, boolean) from public;
