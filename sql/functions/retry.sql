-- Retries a failed instance from where it stopped: completed steps keep their results, every other active step runs again. In an active instance it
-- retries the steps that wait for an operator.
-- One advance job without a step makes the next worker compute from the results which steps those are.
create or replace function pgflow.retry_run(run bigint, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    graph jsonb;
    orchestration text;
    active bigint;
    violated text;
    paused pgflow.jobs;
begin
    -- Lock order: the business id before the instance, as in a start. Both columns are immutable.
    perform pgflow.lock_business_ids(array[i.id]) from pgflow.instances i where i.run = retry_run.run and i.unique_key is not null;
    select
        i.id, i.workflow, i.version, i.status, i.unique_key, i.input,
        case when i.error ? 'checkpoint' then jsonb_build_object(i.error ->> 'step', i.error -> 'checkpoint') end as checkpoint
    into instance from pgflow.instances i where i.run = retry_run.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', retry_run.run), hint = 'List them: pgflow list';
    end if;
    if instance.status in ('running', 'waiting') then
        for paused in
            select j.* from pgflow.jobs j where j.run = retry_run.run and j.state = 'parked' and j.kind = 'execute' order by j.id for no key update
        loop
            perform pgflow.run_paused_again(paused);
            if notify then
                perform pg_notify(pgflow.channel(), paused.queue);
            end if;
        end loop;
        if paused.id is not null then
            perform pgflow.audit('retry', jsonb_build_object('run', retry_run.run, 'id', instance.id, 'workflow', instance.workflow));
            perform pgflow.answer(null);
            return;
        end if;
    end if;
    if instance.status <> 'failed' then
        raise exception using errcode = 'PF009', message = format('%s %L is %s: only a failed instance can be retried, or a step that waits for an operator', instance.workflow, instance.id, instance.status),
            hint = 'See its state: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;
    active := pgflow.excluding_run(instance.id, instance.workflow, instance.unique_key, retry_run.run);
    if active is not null then
        raise exception using errcode = 'PF002', message = format('%s %L is already running, in run %s',
            (select i.workflow from pgflow.instances i where i.run = active), instance.id, active),
            hint = 'Wait until that run has ended, or cancel it.';
    end if;
    begin
        update pgflow.instances i
        set status = 'running', revision = i.revision + 1, error = null, finished_at = null, deadline = null
        where i.run = retry_run.run;
    exception when unique_violation then
        get stacked diagnostics violated = constraint_name;
        if violated <> 'instances_one_active' then  -- of a table that a user's trigger writes to
            raise;
        end if;
        raise exception using errcode = 'PF002', message = format('%s %L is already running again', instance.workflow, instance.id),
            hint = 'Wait until that run has ended, or cancel it.';
    end;
    update pgflow.step_results r set applied = true where r.run = retry_run.run and not r.applied;
    select d.graph into graph from pgflow.definitions d where d.workflow = instance.workflow and d.version = instance.version;
    orchestration := coalesce(graph ->> 'orchestration_queue', graph #>> array['steps', graph ->> 'initial', 'queue'], 'default');
    insert into pgflow.jobs (run, kind, step, queue, key, cost, checkpoint) values (
        retry_run.run, 'advance', '', orchestration, pgflow.job_key(graph, instance.input), coalesce((graph ->> 'weight')::smallint, 1::smallint),
        instance.checkpoint);
    perform pgflow.audit('retry', jsonb_build_object('run', retry_run.run, 'id', instance.id, 'workflow', instance.workflow));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), orchestration);
    end if;
end
$$;

create or replace function pgflow.retry(workflow text, value text, notify boolean default true) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.retry_run(pgflow.find(workflow, value), notify) $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.retry_run(bigint, boolean) from public;
revoke all on function pgflow.retry(text, text, boolean) from public;
