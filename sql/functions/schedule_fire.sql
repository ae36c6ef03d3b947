-- Stores the schedules that an app has in its code. A worker of the app also marks those of the app that it does not declare (`is_worker`): the
-- workers of an earlier release that declare them still fire them. Raises PF031 for a name that another app or a call at run time has taken.
create or replace function pgflow.declare_schedules(app text, declared jsonb, is_worker boolean) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    taken record;
begin
    select s.name, s.declared_by into taken
    from pgflow.schedules s join jsonb_array_elements(declare_schedules.declared) d (value) on d.value ->> 'name' = s.name
    where s.declared_by is distinct from declare_schedules.app limit 1;
    if found then
        raise exception using errcode = 'PF031',
            message = format('there is a schedule named %L already, %s', taken.name,
                coalesce('declared by the app ' || quote_literal(taken.declared_by), 'added at run time')),
            hint = 'Give this one another name, or remove that one: pgflow schedule remove ' || taken.name;
    end if;
    perform from pgflow.schedules s where s.declared_by = declare_schedules.app order by s.name for no key update;
    -- With other times, or declared again after more than an hour, a schedule begins now: instants before that are not missed ones.
    update pgflow.schedules s
    set handled_at = greatest(s.handled_at, pgflow.now()), next_at = case when s.paused_at is null then pgflow.now() end
    from jsonb_to_recordset(declare_schedules.declared) as d (name text, cron text, every double precision, tz text)
    where s.name = d.name and ((s.cron, s.every, s.tz) is distinct from (d.cron, d.every, d.tz) or s.undeclared_at < pgflow.now() - interval '1 hour');
    insert into pgflow.schedules as s
        (name, target, kind, cron, every, tz, input, value, overlap, catch_up, jitter, handled_at, next_at, declared_by, last_declared_at)
    select
        d.name, d.target, d.kind, d.cron, d.every, d.tz, d.input, d.value, d.overlap, d.catch_up, d.jitter, pgflow.now(), pgflow.now(),
        declare_schedules.app, pgflow.now()
    from jsonb_to_recordset(declare_schedules.declared) as d (
        name text, target text, kind text, cron text, every double precision, tz text, input jsonb, value text, overlap text, catch_up text,
        jitter double precision)
    order by d.name
    on conflict (name) do update
    set target = excluded.target, kind = excluded.kind, cron = excluded.cron, every = excluded.every, tz = excluded.tz, input = excluded.input,
        value = excluded.value, overlap = excluded.overlap, catch_up = excluded.catch_up, jitter = excluded.jitter,
        last_declared_at = excluded.last_declared_at, undeclared_at = null, revision = s.revision + 1
    where s.declared_by = excluded.declared_by;
    if declare_schedules.is_worker then
        update pgflow.schedules s set undeclared_at = pgflow.now()
        where s.declared_by = declare_schedules.app and s.undeclared_at is null
            and s.name not in (select d.value ->> 'name' from jsonb_array_elements(declare_schedules.declared) d (value));
    end if;
end
$$;

-- Carries out the decisions of a worker about due schedules, each in the state that it was decided in (`revision`): starts runs, and stores which
-- instants are handled and the next one. Returns a row for each that was written or had to wait, with the queues to notify.
--   fired: written;  busy: another session has locked the run to cancel;  unknown: no such workflow or task is registered, yet
-- A start whose value is refused is recorded as the schedule's `last_error`; its instant does not come again.
create or replace function pgflow.fire_schedules(firings jsonb)
returns table (name text, status text, started bigint, queues text[], cancelled boolean, error text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    firing record;
    schedule record;
    item record;
    started_run record;
    refused integer;
    reason text;
    latest_run bigint;
    latest_at timestamptz;
begin
    for firing in
        select
            f.value ->> 'name' as name, (f.value ->> 'revision')::bigint as revision, (f.value ->> 'handled_at')::timestamptz as handled_at,
            (f.value ->> 'next_at')::timestamptz as next_at, (f.value ->> 'queued_until')::timestamptz as queued_until,
            (f.value ->> 'skipped')::bigint as skipped, (f.value ->> 'missed')::bigint as missed,
            (f.value ->> 'cancels_last')::boolean as cancels_last, f.value ->> 'error' as error, f.value -> 'starts' as starts
        from jsonb_array_elements(fire_schedules.firings) f (value)
        order by 1
    loop
        select s.kind, s.target, s.last_run into schedule
        from pgflow.schedules s
        where s.name = firing.name and s.revision = firing.revision and s.paused_at is null
        for no key update skip locked;
        continue when not found;  -- another worker is doing it, or has done it
        name := firing.name;
        status := 'fired';
        started := 0;
        queues := '{}';
        cancelled := false;
        error := firing.error;
        refused := 0;
        latest_run := null;
        reason := 'the next run of the schedule ' || firing.name || ' is due';
        if firing.cancels_last then
            -- Not `cancel_run`, which would wait for a session that has locked the run, and record an operator's action.
            if schedule.kind = 'task' then
                perform from pgflow.jobs j where j.id = schedule.last_run and j.kind = 'task' for update skip locked;
            else
                perform from pgflow.instances i
                where i.run = schedule.last_run and i.status in ('pending', 'running', 'waiting')
                for no key update skip locked;
            end if;
            cancelled := found;
            if cancelled and schedule.kind = 'task' then
                perform pgflow.end_tasks(array[schedule.last_run], 'cancelled', null, jsonb_build_object('reason', reason), false);
            elsif cancelled then
                perform pgflow.end_instance(schedule.last_run, 'cancelled', jsonb_build_object('reason', reason), false);
            elsif exists (
                select from pgflow.instances i
                where schedule.kind = 'workflow' and i.run = schedule.last_run and i.status in ('pending', 'running', 'waiting')
                union all select from pgflow.jobs j where schedule.kind = 'task' and j.id = schedule.last_run and j.kind = 'task') then
                status := 'busy';
                return next;
                continue;
            end if;
        end if;
        for item in
            select (e.value ->> 'instant')::timestamptz as instant, e.value ->> 'value' as value, (e.value -> 'input')::text as input,
                (e.value ->> 'version')::integer as version, (e.value ->> 'at')::timestamptz as at, e.value ->> 'key' as key,
                e.value ->> 'unique' as unique_key
            from jsonb_array_elements(firing.starts) with ordinality e (value, ord)
            order by e.ord
        loop
            begin
                select * into started_run
                from pgflow.start_instant(
                    firing.name, schedule.kind, schedule.target, item.instant, item.value, item.input, item.version, item.at, item.key,
                item.unique_key);
                if started_run.created then
                    started := started + 1;
                    queues := queues || array_remove(array[started_run.queue], null);  -- null: it starts later
                    latest_run := started_run.run;
                    latest_at := item.instant;
                else
                    refused := refused + 1;  -- was started by hand, and is active
                end if;
            exception
                when sqlstate 'PF001' or sqlstate 'PF016' then
                    status := 'unknown';
                    error := sqlerrm;
                    exit;
                when others then
                    if left(sqlstate, 2) in ('22', '54', 'PF') and sqlstate <> '2200H' or sqlstate = '23514' then
                        error := sqlerrm;
                    else
                        raise;  -- contention, a sequence behind its table, the whole database: nothing is written, and it is tried again
                    end if;
            end;
        end loop;
        if status = 'fired' then
            update pgflow.schedules s
            set handled_at = firing.handled_at, next_at = firing.next_at, queued_until = firing.queued_until, revision = s.revision + 1,
                last_at = coalesce(latest_at, s.last_at), last_run = coalesce(latest_run, s.last_run),
                fired = s.fired + fire_schedules.started, skipped = s.skipped + firing.skipped + refused, missed = s.missed + firing.missed,
                last_error = case
                    when fire_schedules.error is not null then jsonb_build_object('reason', fire_schedules.error, 'at', pgflow.now())
                    when latest_run is null then s.last_error end
            where s.name = firing.name;
        end if;
        return next;
    end loop;
end
$$;

-- Not granted to PUBLIC.
revoke all on function pgflow.declare_schedules(text, jsonb, boolean) from public;
revoke all on function pgflow.fire_schedules(jsonb) from public;
