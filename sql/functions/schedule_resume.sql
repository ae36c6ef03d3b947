-- Schedules a signal to one step after `delay`; returns its id, for `pgflow.unschedule`, and when it is due.
-- The default event is the only one that the step accepts, or "timeout" if it accepts several.
create or replace function pgflow.schedule_resume_run(
    run bigint, step text, delay interval, event text default null, payload jsonb default null, out id bigint, out due_at timestamptz
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    accepted text[];
begin
    if schedule_resume_run.delay is null or schedule_resume_run.delay < interval '0' then
        raise exception using errcode = 'PF008', message = format('delay must be zero or more, got %s', coalesce(schedule_resume_run.delay::text, 'null')),
            hint = 'Pass an interval such as 10 minutes.';
    end if;
    if event is null then
        select array(select jsonb_array_elements_text(d.graph #> array['steps', schedule_resume_run.step, 'signals'])) into accepted
        from pgflow.instances i join pgflow.definitions d on d.workflow = i.workflow and d.version = i.version
        where i.run = schedule_resume_run.run;
        event := case when cardinality(accepted) = 1 then accepted[1] else 'timeout' end;
    end if;
    perform pgflow.admit_signal(schedule_resume_run.run, event, schedule_resume_run.payload, schedule_resume_run.step);
    insert into pgflow.scheduled_signals as s (run, step, name, payload, due_at)
    values (
        schedule_resume_run.run, schedule_resume_run.step, event, schedule_resume_run.payload,
        pgflow.now() + schedule_resume_run.delay
    )
    returning s.id, s.due_at into id, due_at;
    perform pgflow.answer(jsonb_build_object('run', schedule_resume_run.run, 'id', id, 'due_at', due_at));
end
$$;

-- Schedules a signal by business value: pgflow.schedule_resume('OrderFlow', 'abc123', 'approval', '10 minutes', 'rejected').
create or replace function pgflow.schedule_resume(
    workflow text, value text, step text, delay interval, event text default null, payload jsonb default null, out id bigint, out due_at timestamptz
) returns record
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select s.id, s.due_at from pgflow.schedule_resume_run(pgflow.find(workflow, value), step, delay, event, payload) s $$;

-- Cancels a scheduled signal; returns whether it was pending: false if it was sent or cancelled before, or its instance completed or was cancelled.
create or replace function pgflow.unschedule(id bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    was_pending boolean;
begin
    with gone as (delete from pgflow.scheduled_signals s where s.id = unschedule.id returning s.run)
    select exists (select from gone g join pgflow.instances i on i.run = g.run where i.status in ('pending', 'running', 'waiting', 'failed'))
    into was_pending;
    perform pgflow.answer(to_jsonb(was_pending));
    return was_pending;
end
$$;

-- Sends the signals that are due, at most `most`, and returns for each the queue to wake (null: none). Drops a signal that no step accepts.
-- One for a failed instance goes into its mailbox, for a retry. Instances locked by another session are left to the next call.
create or replace function pgflow.send_due(most integer) returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    due record;
begin
    for due in
        select s.id, s.run, s.step, s.name, s.payload, i.status
        from pgflow.scheduled_signals s join pgflow.instances i on i.run = s.run
        where s.due_at <= pgflow.now()
        order by s.due_at, s.id
        limit most
        for no key update of i skip locked
    loop
        delete from pgflow.scheduled_signals s where s.id = due.id;
        continue when not found;  -- cancelled concurrently, or sent by a session that has released its lock since
        if due.status = 'failed' then
            insert into pgflow.signals (run, step, name, payload)
            select due.run, due.step, due.name, due.payload
            where not exists (select from pgflow.step_results r where r.run = due.run and r.step = due.step);
            return next null::text;
            continue;
        end if;
        begin
            perform pgflow.resume_run(due.run, due.name, due.payload, due.step, notify => false);
            return next (
                select j.queue from pgflow.jobs j where j.run = due.run and j.step = due.step and j.kind = 'resume' and j.state = 'ready'
            );
        exception when sqlstate 'PF003' or sqlstate 'PF004' or sqlstate 'PF005' or sqlstate 'PF010' then
            return next null::text;  -- the instance has ended or is past the step
        end;
    end loop;
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.schedule_resume_run(bigint, text, interval, text, jsonb) from public;
revoke all on function pgflow.schedule_resume(text, text, text, interval, text, jsonb) from public;
revoke all on function pgflow.unschedule(bigint) from public;
revoke all on function pgflow.send_due(integer) from public;
