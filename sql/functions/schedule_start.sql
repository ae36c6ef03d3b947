-- Returns an instant as its run's business value and metadata have it: 2030-01-31T09:00:00Z, with microseconds if it has any.
create or replace function pgflow.instant_text(instant timestamptz) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select to_char(instant at time zone 'UTC', case when extract(microseconds from instant)::bigint % 1000000 = 0
        then 'YYYY-MM-DD"T"HH24:MI:SS"Z"' else 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"' end)
$$;

-- Starts the run of one instant of a schedule: an instance, or the job of a task. Its row has created = false, and the active run, if the business value is active; `queue` is the
-- one to notify, null for a run that starts later.
create or replace function pgflow.start_instant(
    schedule text, kind text, target text, instant timestamptz, value text, input text, version integer, at timestamptz, key text, unique_key text,
    out run bigint, out created boolean, out queue text
) returns record
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    metadata jsonb := jsonb_build_object('schedule', start_instant.schedule, 'scheduled_for', pgflow.instant_text(start_instant.instant));
begin
    if start_instant.kind = 'task' then
        select e.id, e.created into start_instant.run, start_instant.created
        from pgflow.enqueue_many(
            start_instant.target, array[coalesce(start_instant.input, '{}')], at => start_instant.at, metadata => metadata, notify => false,
            keys => case when start_instant.unique_key is not null then array[start_instant.unique_key] end,
            partition_keys => case when start_instant.key is not null then array[start_instant.key] end) e;
        start_instant.queue := (select j.queue from pgflow.jobs j where j.id = start_instant.run and j.state = 'ready');
        return;
    end if;
    select s.run, s.created into start_instant.run, start_instant.created
    from pgflow.start_many(
        start_instant.target, array[start_instant.value], array[start_instant.input], start_instant.version, at => start_instant.at,
        metadata => metadata, notify => false, keys => case when start_instant.key is not null then array[start_instant.key] end
    ) s;
    start_instant.queue := (
        select j.queue from pgflow.jobs j where start_instant.created and j.run = start_instant.run and j.state = 'ready' limit 1);
end
$$;

-- Starts the runs of given instants at once, whatever the schedule's overlap and state. `starts` is a JSON array of objects with `instant`,
-- `value`, and if there are any `input`, `version`, `at`, `key` and `unique`. Raises PF030 without the schedule, PF031 when
-- it has another target.
create or replace function pgflow.start_instants(name text, target text, starts jsonb, notify boolean default true)
returns table (ord bigint, instant timestamptz, run bigint, created boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    schedule record;
    item record;
    started record;
    instants timestamptz[] := '{}';
    runs bigint[] := '{}';
    created_flags boolean[] := '{}';
    queues text[] := '{}';
    once_key text := coalesce(current_setting('pgflow_once.key', true), '');
begin
    select s.kind, s.target into schedule from pgflow.schedules s where s.name = start_instants.name;
    if not found then
        raise exception using errcode = 'PF030', message = format('there is no schedule named %L', start_instants.name),
            hint = 'List them: pgflow schedule list';
    end if;
    if schedule.target is distinct from start_instants.target then
        raise exception using errcode = 'PF031', message = format('the schedule %L was changed at the same time', start_instants.name),
            hint = 'Call again.';
    end if;
    perform set_config('pgflow_once.key', '', true);  -- the answer of this call is the one below, not those of the starts
    for item in
        select e.ord, (e.value ->> 'instant')::timestamptz as instant, e.value ->> 'value' as value, (e.value -> 'input')::text as input,
            (e.value ->> 'version')::integer as version, (e.value ->> 'at')::timestamptz as at, e.value ->> 'key' as key,
                e.value ->> 'unique' as unique_key
        from jsonb_array_elements(start_instants.starts) with ordinality e (value, ord)
        order by e.ord
    loop
        select * into started
        from pgflow.start_instant(
            start_instants.name, schedule.kind, schedule.target, item.instant, item.value, item.input, item.version, item.at, item.key,
                item.unique_key);
        ord := item.ord;
        instant := item.instant;
        run := started.run;
        created := started.created;
        instants := instants || item.instant;
        runs := runs || started.run;
        created_flags := created_flags || started.created;
        queues := queues || started.queue;
        return next;
    end loop;
    perform set_config('pgflow_once.key', once_key, true);
    if cardinality(instants) > 0 then
        perform pgflow.audit('run schedule', jsonb_build_object(
            'schedule', start_instants.name, 'from', (select min(t) from unnest(instants) t), 'to', (select max(t) from unnest(instants) t),
            'count', (select count(*) from unnest(created_flags) c where c)));
    end if;
    perform pgflow.answer(jsonb_build_object('instants', instants, 'runs', runs, 'created', created_flags));
    if start_instants.notify then
        perform pg_notify(pgflow.channel(), q) from (select distinct unnest(queues)) n (q) where q is not null;
    end if;
end
$$;

-- Starts the run of one instant at once, by default of now, and returns it: pgflow.run_schedule('nightly'). A range of instants:
--     select pgflow.run_schedule('nightly', day) from generate_series('2030-01-01', '2030-01-31', interval '1 day') day;
create or replace function pgflow.run_schedule(name text, instant timestamptz default null, notify boolean default true) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    schedule record;
    started record;
    moment timestamptz := coalesce(run_schedule.instant, pgflow.now());
    once_key text := coalesce(current_setting('pgflow_once.key', true), '');
begin
    select s.kind, s.target, s.input, s.value into schedule from pgflow.schedules s where s.name = run_schedule.name;
    if not found then
        raise exception using errcode = 'PF030', message = format('there is no schedule named %L', run_schedule.name),
            hint = 'List them: pgflow schedule list';
    end if;
    if schedule.input ? 'pgflow:sealed' then
        raise exception using errcode = 'PF008', message = format('the input of the schedule %L is encrypted', run_schedule.name),
            hint = 'Run it with the app, which has the key: app.schedules.run(), or pgflow schedule run --app.';
    end if;
    perform set_config('pgflow_once.key', '', true);  -- as above
    select * into started
    from pgflow.start_instant(
        run_schedule.name, schedule.kind, schedule.target, moment,
        replace(replace(schedule.value, '{name}', run_schedule.name), '{instant}', pgflow.instant_text(moment)), schedule.input::text, null, null, null,
        null);
    if not started.created then
        raise exception using errcode = 'PF002',
            message = format('the run of %L for %s is active: run %s', run_schedule.name, pgflow.instant_text(moment), started.run),
            hint = 'Wait until it has ended, or cancel it.';
    end if;
    perform set_config('pgflow_once.key', once_key, true);
    perform pgflow.audit('run schedule', jsonb_build_object('schedule', run_schedule.name, 'from', moment, 'to', moment, 'count', 1));
    perform pgflow.answer(jsonb_build_object('instants', array[moment], 'runs', array[started.run], 'created', array[true]));
    if run_schedule.notify and started.queue is not null then
        perform pg_notify(pgflow.channel(), started.queue);
    end if;
    return started.run;
end
$$;

-- Not granted to PUBLIC. `instant_text` and `start_instant` are called by other functions only.
revoke all on function pgflow.start_instant(text, text, text, timestamptz, text, text, integer, timestamptz, text, text) from public;
revoke all on function pgflow.start_instants(text, text, jsonb, boolean) from public;
revoke all on function pgflow.run_schedule(text, timestamptz, boolean) from public;
