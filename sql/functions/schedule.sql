-- Adds a schedule at run time; a worker that knows the target computes when it fires: pgflow.add_schedule('nightly', 'SendReport', '0 9 * * mon',
-- tz => 'Europe/Berlin'). `every` is an interval in place of an expression. With `replace_existing` it takes the place of one that was added before.
create or replace function pgflow.add_schedule(
    name text, target text, cron text default null, every interval default null, tz text default 'UTC', input jsonb default null,
    value text default '{name}@{instant}', overlap text default 'skip', catch_up text default 'last', jitter interval default '0',
    replace_existing boolean default false
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    fault text;
    target_kind text;
    existing record;
    period double precision := extract(epoch from add_schedule.every);
    cron_fields text[] := regexp_split_to_array(btrim(add_schedule.cron), E'\\s+');
    cron_fault text;
begin
    -- As cronsim, which also knows ranges that run backwards and days that never come: a worker reports those.
    select format('cron: the %s %L is not in %s', f.name, g.given, f.allowed) into cron_fault
    from (values
        (1, 'second', '0-59', '0*[0-5]?[0-9]', ''),
        (2, 'minute', '0-59', '0*[0-5]?[0-9]', ''),
        (3, 'hour', '0-23', '0*(1?[0-9]|2[0-3])', ''),
        (4, 'day-of-month', '1-31, L or LW', '0*([1-9]|[12][0-9]|3[01])', '|LW?(/0*[1-9][0-9]*)?'),
        (5, 'month', '1-12 or JAN-DEC', '0*([1-9]|1[0-2])|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC', ''),
        (6, 'day-of-week', '0-7 or SUN-SAT, with #n or L', '0*[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT', '|(%1$s)#0*[1-5]|0*[0-7]L')
    ) as f (n, name, allowed, value, special)
    join unnest(case cardinality(cron_fields) when 5 then '{0}'::text[] when 6 then '{}' end || cron_fields) with ordinality as g (given, n) using (n)
    where upper(g.given) !~ format('^(%1$s)(,(%1$s))*$', format('([*]|(%1$s)(-(%1$s))?)(/0*[1-9][0-9]*)?' || f.special, f.value))
    order by f.n limit 1;
    fault := case
        when add_schedule.name is null or length(add_schedule.name) not between 1 and 100 or strpos(add_schedule.name, '::') > 0
            or add_schedule.name collate "C" ~ E'[\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]'
            then format('name: %L is not 1 to 100 characters without white space and "::"', add_schedule.name)
        when (add_schedule.cron is null) = (add_schedule.every is null) then 'give either cron or every'
        when add_schedule.cron is not null and cardinality(cron_fields) not in (5, 6)
            and add_schedule.cron !~* '^[[:space:]]*@(yearly|annually|monthly|weekly|daily|midnight|hourly)[[:space:]]*$'
            then format('cron: %L has neither five nor six fields, nor is it @hourly, @daily, @weekly, @monthly or @yearly', add_schedule.cron)
        when cardinality(cron_fields) in (5, 6) and cron_fault is not null then cron_fault
        when period < 1 or period > 3155760000 then format('every: %s is not from one second to 100 years', to_json(add_schedule.every))
        when add_schedule.every is not null and add_schedule.tz <> 'UTC' then format('tz: %L is given, but an interval has no time zone', add_schedule.tz)
        when add_schedule.tz is null or not exists (select from pg_timezone_names z where z.name = add_schedule.tz)
            then format('tz: there is no time zone %L', add_schedule.tz)
        when strpos(coalesce(add_schedule.value, ''), '{instant}') = 0 then format('value: %L does not contain {instant}', add_schedule.value)
        when add_schedule.overlap is null or add_schedule.overlap not in ('skip', 'queue', 'cancel_old', 'allow')
            then format('overlap: %L is not skip, queue, cancel_old or allow', add_schedule.overlap)
        when add_schedule.catch_up is null or add_schedule.catch_up not in ('none', 'last', 'all')
            then format('catch_up: %L is not none, last or all', add_schedule.catch_up)
        when add_schedule.jitter is null or add_schedule.jitter < interval '0' or extract(epoch from add_schedule.jitter) > period
            then format('jitter: %s is negative or longer than the interval', to_json(add_schedule.jitter))
    end;
    if fault is not null then
        raise exception using errcode = 'PF008', message = 'invalid schedule: ' || fault,
            hint = 'An example: pgflow.add_schedule(''nightly'', ''SendReport'', ''0 9 * * mon'', tz => ''Europe/Berlin'').';
    end if;
    fault := coalesce(pgflow.json_fault(add_schedule.input), case
        when pg_column_size(add_schedule.input) > 65536 then 'is over the limit of 65536 bytes, since it is copied into every run' end);
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'an input ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    target_kind := case
        when exists (select from pgflow.definitions d where d.workflow = add_schedule.target) then 'workflow'
        when exists (select from pgflow.tasks t where t.name = add_schedule.target) then 'task'
    end;
    if target_kind is null then
        raise exception using errcode = 'PF001', message = format('no workflow or task named %L is registered here', add_schedule.target),
            hint = coalesce('Known: ' || (
                    select string_agg(n, ', ' order by n) from (select d.workflow from pgflow.definitions d union select t.name from pgflow.tasks t) k (n)) || '.',
                'Start a worker with the app that defines it: pgflow worker --app module:app');
    end if;
    select s.declared_by into existing from pgflow.schedules s where s.name = add_schedule.name for no key update;
    if found and (existing.declared_by is not null or not add_schedule.replace_existing) then
        raise exception using errcode = 'PF031',
            message = format('there is a schedule named %L already%s', add_schedule.name, ', declared by the app ' || quote_literal(existing.declared_by)),
            hint = case when existing.declared_by is null then 'Use another name, or replace it.' else 'Use another name, or change it in the code.' end;
    end if;
    insert into pgflow.schedules as s
        (name, target, kind, cron, every, tz, input, value, overlap, catch_up, jitter, handled_at, next_at)
    values (
        add_schedule.name, add_schedule.target, target_kind, btrim(add_schedule.cron), period, add_schedule.tz, add_schedule.input, add_schedule.value,
        add_schedule.overlap, add_schedule.catch_up, extract(epoch from add_schedule.jitter), pgflow.now(), pgflow.now())
    on conflict (name) do update
    set target = excluded.target, kind = excluded.kind, cron = excluded.cron, every = excluded.every, tz = excluded.tz, input = excluded.input,
        value = excluded.value, overlap = excluded.overlap, catch_up = excluded.catch_up, jitter = excluded.jitter,
        handled_at = greatest(s.handled_at, excluded.handled_at), next_at = case when s.paused_at is null then excluded.next_at end,
        last_error = null, revision = s.revision + 1
    where add_schedule.replace_existing and s.declared_by is null;
    if not found then
        raise exception using errcode = 'PF031', message = format('there is a schedule named %L already', add_schedule.name),
            hint = 'Use another name, or replace it.';
    end if;
    perform pgflow.audit('add schedule', jsonb_strip_nulls(jsonb_build_object(
        'schedule', add_schedule.name, 'target', add_schedule.target, 'cron', add_schedule.cron, 'every', period)));
    perform pgflow.answer(null);
end
$$;

-- Pauses a schedule: no instant fires until it is resumed, and those in between are dropped. Paused twice, it keeps the first time and person.
create or replace function pgflow.pause_schedule(name text, paused_by text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgflow.schedules s
    set paused_at = coalesce(s.paused_at, pgflow.now()),
        paused_by = case when s.paused_at is null then coalesce(pause_schedule.paused_by, session_user) else s.paused_by end,
        next_at = null, revision = s.revision + 1
    where s.name = pause_schedule.name;
    if not found then
        raise exception using errcode = 'PF030', message = format('there is no schedule named %L', pause_schedule.name),
            hint = 'List them: pgflow schedule list';
    end if;
    perform pgflow.audit('pause schedule', jsonb_build_object('schedule', pause_schedule.name), pause_schedule.paused_by);
    perform pgflow.answer(null);
end
$$;

-- Resumes a paused schedule, from the first instant after now. Also one whose last instant lies in the future, because the clock was set back.
create or replace function pgflow.resume_schedule(name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgflow.schedules s
    set paused_at = null, paused_by = null, handled_at = pgflow.now(), next_at = pgflow.now(), revision = s.revision + 1
    where s.name = resume_schedule.name and (s.paused_at is not null or s.handled_at > pgflow.now());
    if not found and not exists (select from pgflow.schedules s where s.name = resume_schedule.name) then
        raise exception using errcode = 'PF030', message = format('there is no schedule named %L', resume_schedule.name),
            hint = 'List them: pgflow schedule list';
    end if;
    perform pgflow.audit('resume schedule', jsonb_build_object('schedule', resume_schedule.name));
    perform pgflow.answer(null);
end
$$;

-- Removes a schedule; runs that it has started go on. One that an app declares would come back with the app, so it is refused without `force`.
create or replace function pgflow.remove_schedule(name text, force boolean default false) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    existing record;
begin
    select s.declared_by, s.undeclared_at into existing from pgflow.schedules s where s.name = remove_schedule.name for update;
    if not found then
        raise exception using errcode = 'PF030', message = format('there is no schedule named %L', remove_schedule.name),
            hint = 'List them: pgflow schedule list';
    end if;
    if existing.declared_by is not null and existing.undeclared_at is null and not coalesce(remove_schedule.force, false) then
        raise exception using errcode = 'PF031',
            message = format('the app %L declares the schedule %L: it would add it again', existing.declared_by, remove_schedule.name),
            hint = 'Remove it from the code first, or pause it; or pass force if no process of that app will start again.';
    end if;
    delete from pgflow.schedules s where s.name = remove_schedule.name;
    perform pgflow.audit('remove schedule', jsonb_build_object('schedule', remove_schedule.name));
    perform pgflow.answer(null);
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.add_schedule(text, text, text, interval, text, jsonb, text, text, text, interval, boolean) from public;
revoke all on function pgflow.pause_schedule(text, text) from public;
revoke all on function pgflow.resume_schedule(text) from public;
revoke all on function pgflow.remove_schedule(text, boolean) from public;
