-- Locks an instance for a signal and returns the steps that accept it. Raises an error when none can: PF003, PF004, PF005, PF006 or PF010.
create or replace function pgflow.admit_signal(run bigint, event text, payload jsonb, step text) returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
    accepting text[];
    fault text := pgflow.json_fault(payload);
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'a payload ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    select i.id, i.workflow, i.version, i.status into instance
    from pgflow.instances i where i.run = admit_signal.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', admit_signal.run), hint = 'List them: pgflow list';
    end if;
    if instance.status not in ('pending', 'running', 'waiting') then
        raise exception using errcode = 'PF005', message = format('%s %L is %s: it takes no more signals', instance.workflow, instance.id, instance.status),
            hint = 'Start a new instance to run it once more.';
    end if;

    if admit_signal.step is not null and not exists (
        select from pgflow.definitions d
        where d.workflow = instance.workflow and d.version = instance.version and d.graph -> 'steps' ? admit_signal.step
    ) then
        raise exception using errcode = 'PF010', message = format('%s has no step %L', instance.workflow, admit_signal.step),
            hint = 'It has: ' || coalesce((
                select string_agg(s.key, ', ' order by s.key)
                from pgflow.definitions d cross join jsonb_object_keys(d.graph -> 'steps') s (key)
                where d.workflow = instance.workflow and d.version = instance.version), 'none') || '.';
    end if;
    select array_agg(s.key order by s.key) into accepting
    from pgflow.definitions d cross join jsonb_each(d.graph -> 'steps') s
    where d.workflow = instance.workflow and d.version = instance.version
        and s.value -> 'signals' ? admit_signal.event and (admit_signal.step is null or s.key = admit_signal.step);
    if accepting is null then
        raise exception using errcode = 'PF004',
            message = format('%s%s takes no signal %L', instance.workflow, ' step ' || quote_literal(admit_signal.step), admit_signal.event),
            hint = 'It takes: ' || coalesce((
                select string_agg(distinct n.name || ' (' || s.key || ')', ', ')
                from pgflow.definitions d cross join jsonb_each(d.graph -> 'steps') s
                cross join jsonb_array_elements_text(s.value -> 'signals') n (name)
                where d.workflow = instance.workflow and d.version = instance.version), 'none') || '.';
    end if;
    -- A wait that a signal has ended counts as passed even before a worker has applied it: the result must not depend on timing.
    if not exists (
        select from unnest(accepting) t (step)
        where not exists (select from pgflow.step_results r where r.run = admit_signal.run and r.step = t.step)
            and not exists (
                select from pgflow.jobs j join pgflow.signals s on s.run = j.run and s.step = j.step
                where j.run = admit_signal.run and j.step = t.step and j.kind <> 'execute' and j.state <> 'parked' and s.consumed_at is null)
    ) then
        raise exception using errcode = 'PF005',
            message = format('%s %L has gone past the step that takes %L (%s)', instance.workflow, instance.id, admit_signal.event, array_to_string(accepting, ', ')),
            hint = 'See what it waits for: pgflow show ' || instance.workflow || ' ' || instance.id;
    end if;
    return accepting;
end
$$;

-- Not granted to PUBLIC or to any role: called by other functions only.
revoke all on function pgflow.admit_signal(bigint, text, jsonb, text) from public;
