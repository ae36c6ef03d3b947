-- Sends a signal to an instance: returns 'delivered' if it ended a wait, 'kept' if the mailbox holds it for a later wait.
-- Locks the instance row first and increments its revision, so that a step about to park decides again and finds the signal.
create or replace function pgflow.resume_run(
    run bigint, event text, payload jsonb default null, step text default null, notify boolean default true
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    accepting text[];
    waiting record;
    waits bigint;
begin
    accepting := pgflow.admit_signal(resume_run.run, resume_run.event, resume_run.payload, resume_run.step);

    select count(*) over () as waits, j.id, j.step, j.queue into waiting
    from pgflow.jobs j
    where j.run = resume_run.run and j.state = 'parked' and j.awaits ? resume_run.event and (resume_run.step is null or j.step = resume_run.step)
    order by j.id limit 1;
    if waiting.waits > 1 then
        select i.workflow, i.id into instance from pgflow.instances i where i.run = resume_run.run;
        raise exception using errcode = 'PF007', message = format('several steps of %s %L wait for %L', instance.workflow, instance.id, resume_run.event),
            hint = 'Address one of them: ' || array_to_string(accepting, ', ') || '.';
    end if;

    -- Addressed to the wait that it ends, so that no other step consumes it.
    insert into pgflow.signals (run, step, name, payload)
    values (resume_run.run, coalesce(resume_run.step, waiting.step), resume_run.event, resume_run.payload);
    if waiting.id is not null then
        update pgflow.jobs j set state = 'ready', run_at = pgflow.now() where j.id = waiting.id and j.state = 'parked';
        if not found then  -- its timeout came first: the worker that applies it finds the signal
            waiting.id := null;
        end if;
    end if;
    update pgflow.instances i
    set revision = i.revision + 1, status = case when waiting.id is null then i.status else 'running' end
    where i.run = resume_run.run;
    perform pgflow.audit_person('signal', jsonb_build_object('run', resume_run.run, 'event', resume_run.event, 'step', resume_run.step));
    perform pgflow.answer(to_jsonb(case when waiting.id is null then 'kept' else 'delivered' end));
    if waiting.id is null then
        return 'kept';
    end if;
    if notify then
        perform pg_notify(pgflow.channel(), waiting.queue);
    end if;
    return 'delivered';
end
$$;

-- Sends a signal by business value: pgflow.resume('OrderFlow', 'abc123', 'payment_confirmed', '{"amount": 3}').
create or replace function pgflow.resume(
    workflow text, value text, event text, payload jsonb default null, step text default null, notify boolean default true
) returns text
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.resume_run(pgflow.find(workflow, value), event, payload, step, notify) $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.resume_run(bigint, text, jsonb, text, boolean) from public;
revoke all on function pgflow.resume(text, text, text, jsonb, text, boolean) from public;
