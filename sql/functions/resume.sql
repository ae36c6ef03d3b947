-- Sends a signal to an instance and says what became of it: 'delivered' to a wait, or 'kept' for one that is still to come.
-- The instance row is locked first, and its revision moves: a step that is about to park decides again and finds the signal.
create or replace function pgflow.resume_run(
    run bigint, event text, payload jsonb default null, step text default null, notify boolean default true
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    takers text[];
    waiting record;
    waits bigint;
begin
    if octet_length(payload::text) > 65536 then
        raise exception using errcode = 'PF006',
            message = format('a payload of %s bytes is over the limit of 65536', octet_length(payload::text)),
            hint = 'Pass a reference to large data instead of the data.';
    end if;
    select i.id, i.workflow, i.version, i.status into instance
    from pgflow.instances i where i.run = resume_run.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', resume_run.run), hint = 'List them: pgflow list';
    end if;
    if instance.status not in ('pending', 'running', 'waiting') then
        raise exception using errcode = 'PF005', message = format('%s %L is %s: it takes no more signals', instance.workflow, instance.id, instance.status),
            hint = 'Start it again if it is to run once more.';
    end if;

    if resume_run.step is not null and not exists (
        select from pgflow.definitions d
        where d.workflow = instance.workflow and d.version = instance.version and d.graph -> 'steps' ? resume_run.step
    ) then
        raise exception using errcode = 'PF010', message = format('%s has no step %L', instance.workflow, resume_run.step),
            hint = 'It has: ' || coalesce((
                select string_agg(s.key, ', ' order by s.key)
                from pgflow.definitions d cross join jsonb_object_keys(d.graph -> 'steps') s (key)
                where d.workflow = instance.workflow and d.version = instance.version), 'none') || '.';
    end if;
    select array_agg(s.key order by s.key) into takers
    from pgflow.definitions d cross join jsonb_each(d.graph -> 'steps') s
    where d.workflow = instance.workflow and d.version = instance.version
        and s.value -> 'signals' ? resume_run.event and (resume_run.step is null or s.key = resume_run.step);
    if takers is null then
        raise exception using errcode = 'PF004',
            message = format('%s%s takes no signal %L', instance.workflow, ' step ' || quote_literal(resume_run.step), resume_run.event),
            hint = 'It takes: ' || coalesce((
                select string_agg(distinct n.name || ' (' || s.key || ')', ', ')
                from pgflow.definitions d cross join jsonb_each(d.graph -> 'steps') s
                cross join jsonb_array_elements_text(s.value -> 'signals') n (name)
                where d.workflow = instance.workflow and d.version = instance.version), 'none') || '.';
    end if;
    if not exists (
        select from unnest(takers) t (step) where not exists (
            select from pgflow.step_results r where r.run = resume_run.run and r.step = t.step)
    ) then
        raise exception using errcode = 'PF005',
            message = format('%s %L has gone past the step that takes %L (%s)', instance.workflow, instance.id, resume_run.event, array_to_string(takers, ', ')),
            hint = 'See what it waits for: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;

    select count(*) over () as waits, j.id, j.step, j.queue into waiting
    from pgflow.jobs j
    where j.run = resume_run.run and j.state = 'parked' and j.awaits ? resume_run.event and (resume_run.step is null or j.step = resume_run.step)
    order by j.id limit 1;
    if waiting.waits > 1 then
        raise exception using errcode = 'PF007', message = format('several steps of %s %L wait for %L', instance.workflow, instance.id, resume_run.event),
            hint = 'Address one of them: ' || array_to_string(takers, ', ') || '.';
    end if;

    -- Addressed to the wait that it ends: no other step can take it.
    insert into pgflow.signals (run, step, name, payload)
    values (resume_run.run, coalesce(resume_run.step, waiting.step), resume_run.event, resume_run.payload);
    if waiting.id is not null then
        update pgflow.jobs j set state = 'ready', run_at = pgflow.now() where j.id = waiting.id and j.state = 'parked';
    end if;
    update pgflow.instances i
    set revision = i.revision + 1, status = case when waiting.id is null then i.status else 'running' end
    where i.run = resume_run.run;
    if waiting.id is null then
        return 'kept';
    end if;
    if notify then
        perform pg_notify(pgflow.channel(), waiting.queue);
    end if;
    return 'delivered';
end
$$;

-- The same by business value: pgflow.resume('OrderFlow', 'abc123', 'payment_confirmed', '{"amount": 3}').
create or replace function pgflow.resume(
    workflow text, value text, event text, payload jsonb default null, step text default null, notify boolean default true
) returns text
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.resume_run(pgflow.find(workflow, value), event, payload, step, notify) $$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.resume_run(bigint, text, jsonb, text, boolean) from public;
revoke all on function pgflow.resume(text, text, text, jsonb, text, boolean) from public;
