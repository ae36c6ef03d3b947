-- Replaces the stored instance of a run and returns the run; null creates a new one. An active instance continues: an advance job without a
-- step makes the next worker compute which steps are active, and these run again, with their configuration from `step_configs` if it is there.
-- Results of its steps in flight are fenced off. An existing run keeps its mailbox, so that a signal which arrives between a read and a put is
-- not lost; a new run gets `signals`.
-- Drops the earlier signatures: two overloads would be ambiguous, and statements of an older pgflow match this one.
drop function if exists pgflow.put(
    bigint, text, text, integer, text, text, jsonb, text[], jsonb, jsonb, timestamptz, timestamptz, jsonb, timestamptz, text, boolean
);
drop function if exists pgflow.put(
    bigint, text, text, integer, text, text, jsonb, text[], jsonb, jsonb, timestamptz, timestamptz, jsonb, timestamptz, text, boolean, jsonb, jsonb
);

create or replace function pgflow.put(
    run bigint, id text, workflow text, version integer, status text, unique_key text, input jsonb, tags text[], metadata jsonb, error jsonb,
    created_at timestamptz, finished_at timestamptz, history jsonb, due timestamptz default null, queue text default 'default',
    notify boolean default true, signals jsonb default '[]', step_configs jsonb default '{}', deadline timestamptz default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    run_sequence regclass := pg_get_serial_sequence('pgflow.instances', 'run');
    graph jsonb := (select d.graph from pgflow.definitions d where d.workflow = put.workflow and d.version = put.version);
    is_active boolean := coalesce(put.status in ('pending', 'running', 'waiting'), false);
    priority smallint;
    bad text;
    is_new boolean;
    violated text;
begin
    if graph is null then
        raise exception using errcode = 'PF001', message = format('no workflow %L version %s is registered', put.workflow, put.version),
            hint = 'Register it: app.register(), or pgflow worker --app.';
    end if;
    bad := case
        when put.run < 1 then format('the run %s', put.run)
        when put.status is null or not is_active and put.status not in ('completed', 'failed', 'cancelled') then format('the status %L', put.status)
        when (put.finished_at is null) <> is_active then format('the status %L with finished_at %s', put.status, coalesce(put.finished_at::text, 'null'))
        when put.error is not null and put.status not in ('failed', 'cancelled') then format('the status %L with an error', put.status)
        when put.status = 'pending' and put.history <> '[]' then 'the status ''pending'' with a history'
        when put.id is null or put.id collate "C" !~ ('^' || (graph #>> '{unique,key}') || E'::((?!::)[^\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]){1,200}'
            || case graph #>> '{unique,scope}' when 'none' then '::[0-9a-f]{8}' else '' end || '$') then format('the business id %L', put.id)
        when cardinality(put.tags) > 32 or exists (
            select from unnest(put.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then 'the tags'
        when jsonb_typeof(put.history) <> 'array' or exists (
            select from jsonb_array_elements(put.history) e group by e.value ->> 'step' having count(*) > 1 or (e.value ->> 'step') is null) then 'the history'
    end;
    if bad is not null then
        raise exception using errcode = 'PF008', message = 'invalid instance: ' || bad,
            hint = 'Status, times, tags and history must be consistent, and the business id must look like "orderid::abc123".';
    end if;
    bad := case
        when put.input is null then 'the input is null'
        when pgflow.json_fault(put.input) is not null then 'an input ' || pgflow.json_fault(put.input)
        when jsonb_typeof(put.metadata) <> 'object' then 'the metadata is not an object'
        when jsonb_typeof(put.error) <> 'object' then 'the error is not an object'
    end;
    if bad is not null then
        raise exception using errcode = 'PF006', message = bad, hint = 'Pass {} for none, and a reference to large data instead of the data.';
    end if;
    bad := (
        select n.step
        from (
            select e.value ->> 'step' from jsonb_array_elements(put.history) e
            union all select k from jsonb_object_keys(put.step_configs) k
            union all select g.value ->> 'step' from jsonb_array_elements(put.signals) g
        ) n (step)
        where n.step is not null and not graph -> 'steps' ? n.step limit 1);
    if bad is not null then
        raise exception using errcode = 'PF010', message = format('%s has no step %L', put.workflow, bad),
            hint = 'It has: ' || (select string_agg(k, ', ' order by k) from jsonb_object_keys(graph -> 'steps') k) || '.';
    end if;

    if is_active and put.unique_key is not null then
        perform pgflow.lock_business_ids(array[put.id]);
    end if;
    -- Advances the sequence to a new run's number: by nextval, which cannot undo concurrent draws, and by setval first where the number is far ahead.
    if put.run is null then
        put.run := nextval(run_sequence);
    elsif coalesce(pg_sequence_last_value(run_sequence), 0) < put.run - 10000 then
        perform setval(run_sequence, put.run);
    end if;
    while coalesce(pg_sequence_last_value(run_sequence), 0) < put.run loop
        perform nextval(run_sequence);
    end loop;
    if is_active and pgflow.excluding_run(put.id, put.workflow, put.unique_key, put.run) is not null then
        raise exception using errcode = 'PF002', message = format('%s %L is already running in another run', put.workflow, put.id),
            hint = 'Wait until it has ended, cancel it, or put this one when it has ended.';
    end if;
    insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)  -- the mailbox stays
    select p.workflow, p.instance, p.kind, p.name, p.reference from pgflow.payload_references(array[put.run]) p where p.kind <> 'payload';
    begin
        insert into pgflow.instances as i
            (run, id, workflow, version, status, unique_key, input, tags, metadata, error, created_at, finished_at, deadline)
        overriding system value
        values (
            put.run, put.id, put.workflow, put.version, put.status, put.unique_key, put.input, put.tags, put.metadata, put.error,
            coalesce(put.created_at, pgflow.now()), put.finished_at, put.deadline)
        on conflict (run) do update
        set version = excluded.version, status = excluded.status, unique_key = excluded.unique_key, input = excluded.input, tags = excluded.tags,
            -- An older pgflow does not read the metadata for telemetry, so it does not write it either.
            metadata = case when excluded.metadata ? 'pgflow:telemetry' or not i.metadata ? 'pgflow:telemetry' then excluded.metadata
                else excluded.metadata || jsonb_build_object('pgflow:telemetry', i.metadata -> 'pgflow:telemetry') end,
            error = excluded.error, created_at = excluded.created_at, finished_at = excluded.finished_at, deadline = excluded.deadline, revision = i.revision + 1
        where i.id = excluded.id and i.workflow = excluded.workflow
        returning i.revision = 0 into is_new;
    exception when unique_violation then
        get stacked diagnostics violated = constraint_name;
        if violated <> 'instances_one_active' then  -- of a table that a user's trigger writes to
            raise;
        end if;
        raise exception using errcode = 'PF002', message = format('%s %L is already running in another run', put.workflow, put.id),
            hint = 'Wait until it has ended, cancel it, or put this one when it has ended.';
    end;
    if is_new is null then
        raise exception using errcode = 'PF012', message = format('run %s belongs to an instance other than %s %L', put.run, put.workflow, put.id),
            hint = 'Delete that instance first, or give this one another run.';
    end if;
    -- Jobs before results: a worker with a claimed job may be about to add a result, and cannot once the job is deleted.
    with gone as (delete from pgflow.jobs j where j.run = put.run returning j.priority)
    select min(g.priority) into priority from gone g;
    delete from pgflow.step_results r where r.run = put.run;
    insert into pgflow.step_results (run, step, event, targets, output, metadata, errors, attempt, worker, started_at, finished_at)
    select
        put.run, e.value ->> 'step', e.value ->> 'event',
        case when jsonb_typeof(e.value -> 'targets') = 'array' then array(select jsonb_array_elements_text(e.value -> 'targets')) end,
        e.value -> 'output', nullif(e.value -> 'metadata', 'null'), nullif(e.value -> 'errors', 'null'), (e.value ->> 'attempt')::integer, (e.value ->> 'worker')::bigint,
        (e.value ->> 'started_at')::timestamptz, (e.value ->> 'at')::timestamptz
    from jsonb_array_elements(put.history) with ordinality e (value, ord)
    order by e.ord;
    if is_active then
        insert into pgflow.jobs (run, kind, step, queue, key, cost, priority, state, run_at, config)
        values (
            put.run, 'advance', '', put.queue, pgflow.job_key(graph, put.input), coalesce((graph ->> 'weight')::smallint, 1::smallint), coalesce(priority, (graph ->> 'priority')::smallint, 0::smallint),
            case when put.due > pgflow.now() then 'scheduled' else 'ready' end, coalesce(put.due, pgflow.now()), nullif(put.step_configs, '{}'));
    elsif put.status <> 'failed' then  -- a failed one may be retried, and needs its scheduled signals then
        delete from pgflow.scheduled_signals s where s.run = put.run;
    end if;
    if is_new then
        insert into pgflow.signals (run, step, name, payload, sent_at)
        select put.run, g.value ->> 'step', g.value ->> 'event', g.value -> 'payload', (g.value ->> 'at')::timestamptz
        from jsonb_array_elements(put.signals) with ordinality g (value, ord)
        where not (g.value -> 'scheduled')::boolean
        order by g.ord;
        insert into pgflow.scheduled_signals (run, step, name, payload, due_at)
        select put.run, g.value ->> 'step', g.value ->> 'event', g.value -> 'payload', (g.value ->> 'at')::timestamptz
        from jsonb_array_elements(put.signals) with ordinality g (value, ord)
        where (g.value -> 'scheduled')::boolean and (is_active or put.status = 'failed')
        order by g.ord;
    end if;
    perform pgflow.answer(to_jsonb(put.run));
    if notify then
        perform pg_notify(pgflow.channel(), put.queue);
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
    return put.run;
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.put(
    bigint, text, text, integer, text, text, jsonb, text[], jsonb, jsonb, timestamptz, timestamptz, jsonb, timestamptz, text, boolean, jsonb, jsonb,
    timestamptz
) from public;
