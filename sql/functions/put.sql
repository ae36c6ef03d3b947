-- Puts an instance in the place of what is stored of its run. One that is active goes on: an advance token without a step asks the next
-- worker to work out which steps those are, and they run anew. Whoever holds one of its steps loses the right to record anything.
-- Two ways to reach a new run's number: one by one, which cannot undo what others draw meanwhile, and for a far one in a leap.
create or replace function pgflow.put(
    run bigint, id text, workflow text, version integer, status text, unique_key text, input jsonb, tags text[], metadata jsonb, error jsonb,
    created_at timestamptz, finished_at timestamptz, history jsonb, due timestamptz default null, queue text default 'default',
    notify boolean default true
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    numbers regclass := pg_get_serial_sequence('pgflow.instances', 'run');
    is_stored boolean;
begin
    if coalesce(pg_sequence_last_value(numbers), 0) < put.run - 10000 then
        perform setval(numbers, put.run);
    end if;
    while coalesce(pg_sequence_last_value(numbers), 0) < put.run loop
        perform nextval(numbers);
    end loop;
    begin
        insert into pgflow.instances as i
            (run, id, workflow, version, status, unique_key, input, tags, metadata, error, created_at, finished_at)
        overriding system value
        values (
            put.run, put.id, put.workflow, put.version, put.status, put.unique_key, put.input, put.tags, put.metadata, put.error,
            put.created_at, put.finished_at)
        on conflict (run) do update
        set version = excluded.version, status = excluded.status, unique_key = excluded.unique_key, input = excluded.input, tags = excluded.tags,
            metadata = excluded.metadata || case when i.metadata -> 'pgflow:telemetry' is null then '{}'
                else jsonb_build_object('pgflow:telemetry', i.metadata -> 'pgflow:telemetry') end,  -- which a reader does not get to see
            error = excluded.error, created_at = excluded.created_at, finished_at = excluded.finished_at, revision = i.revision + 1
        where i.id = excluded.id and i.workflow = excluded.workflow
        returning true into is_stored;
    exception when unique_violation then
        raise exception using errcode = 'PF002', message = format('%s %L is already running in another run', put.workflow, put.id),
            hint = 'Wait until it has ended, cancel it, or put this one when it has ended.';
    end;
    if is_stored is null then
        raise exception using errcode = 'PF012', message = format('run %s belongs to another instance than %s %L', put.run, put.workflow, put.id),
            hint = 'Delete that one first, or give this one another run.';
    end if;
    -- Tokens before results: who holds a token may be about to add a result. Once the tokens are gone, nobody can.
    delete from pgflow.jobs j where j.run = put.run;
    delete from pgflow.step_results r where r.run = put.run;
    insert into pgflow.step_results (run, step, event, targets, output, metadata, errors, attempt, worker, started_at, finished_at)
    select
        put.run, e.value ->> 'step', e.value ->> 'event',
        case when jsonb_typeof(e.value -> 'targets') = 'array' then array(select jsonb_array_elements_text(e.value -> 'targets')) end,
        nullif(e.value -> 'output', 'null'), nullif(e.value -> 'metadata', 'null'), nullif(e.value -> 'errors', 'null'), (e.value ->> 'attempt')::integer, (e.value ->> 'worker')::bigint,
        (e.value ->> 'started_at')::timestamptz, (e.value ->> 'at')::timestamptz
    from jsonb_array_elements(put.history) with ordinality e (value, ord)
    order by e.ord;
    if put.status in ('pending', 'running', 'waiting') then
        insert into pgflow.jobs (run, kind, step, queue, state, run_at)
        values (
            put.run, 'advance', '', put.queue, case when put.due > pgflow.now() then 'scheduled' else 'ready' end, coalesce(put.due, pgflow.now()));
    else
        delete from pgflow.scheduled_signals s where s.run = put.run;
    end if;
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), put.queue);
        perform pg_notify(pgflow.channel(), '');  -- no queue: whoever runs one of its steps looks whether it still may
    end if;
end
$$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.put(
    bigint, text, text, integer, text, text, jsonb, text[], jsonb, jsonb, timestamptz, timestamptz, jsonb, timestamptz, text, boolean
) from public;
