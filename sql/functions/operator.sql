-- What an operator does with a step whose attempts are used up and whose policy is "pause". Its job is parked and of the kind `execute`; every other
-- parked job is of the kind `resume`.

-- Locks an active instance and returns the job of the step that waits for an operator. Raises PF003, PF005 or PF010.
create or replace function pgflow.paused_job(run bigint, step text) returns pgflow.jobs
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    job pgflow.jobs;
begin
    select i.id, i.workflow, i.version, i.status into instance from pgflow.instances i where i.run = paused_job.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', paused_job.run), hint = 'List them: pgflow list';
    end if;
    if instance.status not in ('pending', 'running', 'waiting') then
        raise exception using errcode = 'PF005',
            message = format('%s %L is %s: no step of it waits for an operator', instance.workflow, instance.id, instance.status),
            hint = 'See its state: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;
    if not exists (
        select from pgflow.definitions d
        where d.workflow = instance.workflow and d.version = instance.version and d.graph -> 'steps' ? paused_job.step
    ) then
        raise exception using errcode = 'PF010', message = format('%s has no step %L', instance.workflow, paused_job.step),
            hint = 'It has: ' || coalesce((
                select string_agg(s.key, ', ' order by s.key)
                from pgflow.definitions d cross join jsonb_object_keys(d.graph -> 'steps') s (key)
                where d.workflow = instance.workflow and d.version = instance.version), 'none') || '.';
    end if;
    select j.* into job
    from pgflow.jobs j
    where j.run = paused_job.run and j.step = paused_job.step and j.state = 'parked' and j.kind = 'execute'
    for no key update;
    if not found then
        raise exception using errcode = 'PF005',
            message = format('step %L of %s %L does not wait for an operator', paused_job.step, instance.workflow, instance.id),
            hint = 'See what it waits for: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;
    return job;
end
$$;

-- Runs a paused step again, with all its attempts: they are numbered on, so that no earlier claim of the job can be mistaken for a new one.
create or replace function pgflow.retry_step_run(run bigint, step text, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job pgflow.jobs := pgflow.paused_job(retry_step_run.run, retry_step_run.step);
begin
    perform pgflow.run_paused_again(job);
    perform pgflow.audit('retry step', jsonb_build_object('run', retry_step_run.run, 'step', retry_step_run.step));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), job.queue);
    end if;
end
$$;

-- Makes the job of a paused step ready, whose instance the caller has locked.
create or replace function pgflow.run_paused_again(job pgflow.jobs) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgflow.jobs j
    set state = 'ready', run_at = pgflow.now(), parked_at = null,
        errors = jsonb_set(job.errors, '{-1}', (job.errors -> -1) - 'exhausted'),
        max_attempts = least(32767, job.attempt + coalesce((
            select (d.graph #>> array['steps', job.step, 'max_attempts'])::integer
            from pgflow.instances i join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
            where i.run = job.run), job.max_attempts))
    where j.id = job.id;
    update pgflow.instances i set revision = i.revision + 1, status = 'running' where i.run = job.run;
end
$$;

-- Completes a paused step with an event, by default its only one, and an output, as if it had run to its end. A worker applies it.
create or replace function pgflow.complete_step_run(
    run bigint, step text, event text default null, output jsonb default null, notify boolean default true
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job pgflow.jobs;
    graph jsonb;
    declared text[];
    fault text := pgflow.json_fault(output);
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'an output ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    job := pgflow.paused_job(complete_step_run.run, complete_step_run.step);
    select d.graph into graph
    from pgflow.instances i join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
    where i.run = complete_step_run.run;
    declared := array(select jsonb_array_elements_text(graph #> array['steps', complete_step_run.step, 'events']));
    if event is null and cardinality(declared) = 1 then
        event := declared[1];
    end if;
    if event is null or event <> all (declared) then
        raise exception using errcode = 'PF004',
            message = case when event is null then format('step %L has several events', complete_step_run.step)
                else format('step %L has no event %L', complete_step_run.step, event) end,
            hint = format('Name one of them: %s.', array_to_string(declared, ', '));
    end if;
    -- Under a name that no caller can send, so that the step consumes this and not an earlier signal of its own.
    insert into pgflow.signals (run, step, name, payload) values (complete_step_run.run, job.step, 'pgflow:complete', output);
    update pgflow.jobs j
    set kind = 'resume', state = 'ready', run_at = pgflow.now(), awaits = jsonb_build_object('pgflow:complete', event),
        queue = coalesce(graph ->> 'orchestration_queue', j.queue)
    where j.id = job.id
    returning j.queue into job.queue;
    update pgflow.instances i set revision = i.revision + 1, status = 'running' where i.run = complete_step_run.run;
    perform pgflow.audit('complete step', jsonb_build_object('run', complete_step_run.run, 'step', complete_step_run.step, 'event', event));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), job.queue);
    end if;
end
$$;

-- Fails a paused step, and its instance with it; `pgflow.retry` can still retry it.
create or replace function pgflow.fail_step_run(run bigint, step text, reason text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    job pgflow.jobs := pgflow.paused_job(fail_step_run.run, fail_step_run.step);
    last jsonb := (job.errors -> -1) - 'exhausted';
begin
    perform pgflow.end_instance(job.run, 'failed', jsonb_build_object('step', job.step) || last
        || case when job.checkpoint is null then '{}' else jsonb_build_object('checkpoint', job.checkpoint) end
        || case when reason is null then '{}' else jsonb_build_object('reason', reason, 'type', 'FailedByOperator') end
        || jsonb_build_object('attempts', case when reason is null then job.errors - -1 else jsonb_set(job.errors, '{-1}', last) end), fail_step_run.notify);
    perform pgflow.audit('fail step', jsonb_build_object('run', fail_step_run.run, 'step', fail_step_run.step, 'reason', reason));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
end
$$;

-- Ends a timer, a back-off or a delay of a step now. A wait for a signal alone has no time to end.
create or replace function pgflow.run_step_now(run bigint, step text, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    job record;
begin
    select i.id, i.workflow into instance from pgflow.instances i where i.run = run_step_now.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', run_step_now.run), hint = 'List them: pgflow list';
    end if;
    update pgflow.jobs j set state = 'ready', run_at = pgflow.now()
    where j.id = (
            select l.id from pgflow.jobs l
            where l.run = run_step_now.run and l.step = run_step_now.step and l.run_at is not null
                and (l.state = 'scheduled' or (l.state = 'parked' and l.kind <> 'execute'))
            order by l.id limit 1 for no key update)
    returning j.id, j.queue into job;
    if job.id is null then
        raise exception using errcode = 'PF005',
            message = format('step %L of %s %L does not wait for a time', run_step_now.step, instance.workflow, instance.id),
            hint = 'See what it waits for: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;
    perform pgflow.audit('run now', jsonb_build_object('run', run_step_now.run, 'step', run_step_now.step));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), job.queue);
    end if;
end
$$;

create or replace function pgflow.retry_step(workflow text, value text, step text, notify boolean default true) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.retry_step_run(pgflow.find(workflow, value), step, notify) $$;

-- By business value: pgflow.complete_step('OrderFlow', 'abc123', 'charge', 'paid', '{"receipt": "r-1"}').
create or replace function pgflow.complete_step(
    workflow text, value text, step text, event text default null, output jsonb default null, notify boolean default true
) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.complete_step_run(pgflow.find(workflow, value), step, event, output, notify) $$;

create or replace function pgflow.fail_step(workflow text, value text, step text, reason text default null, notify boolean default true) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.fail_step_run(pgflow.find(workflow, value), step, reason, notify) $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.paused_job(bigint, text) from public;
revoke all on function pgflow.run_paused_again(pgflow.jobs) from public;
revoke all on function pgflow.run_step_now(bigint, text, boolean) from public;
revoke all on function pgflow.retry_step_run(bigint, text, boolean) from public;
revoke all on function pgflow.complete_step_run(bigint, text, text, jsonb, boolean) from public;
revoke all on function pgflow.fail_step_run(bigint, text, text, boolean) from public;
revoke all on function pgflow.retry_step(text, text, text, boolean) from public;
revoke all on function pgflow.complete_step(text, text, text, text, jsonb, boolean) from public;
revoke all on function pgflow.fail_step(text, text, text, text, boolean) from public;
