-- Starts many instances of one workflow, each an instance row and its first job, in the caller's transaction.
-- A value whose key is already active is skipped: its row returns created = false and the active run.
-- Runs are numbered in the order given. Rows are inserted in the order of their keys, so that two batches with the same keys cannot deadlock.
-- A whole business id of the workflow's key ("orderid::abc123") is accepted in place of its value.
-- It is cancelled if no worker starts it within `expires_in`, and fails at its `deadline`, by default the workflow's; both count from its start.
-- Drops the earlier signatures: two overloads would be ambiguous, and calls of an older pgflow match these.
drop function if exists pgflow.start_many(text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean);
drop function if exists pgflow.start(text, text, jsonb, integer, timestamptz, interval, text[], jsonb, smallint, boolean);

create or replace function pgflow.start_many(
    workflow text, "values" text[], inputs text[], version integer default null, at timestamptz default null, delay interval default null,
    tags text[] default '{}', metadata jsonb default '{}', priority smallint default null, notify boolean default true, keys text[] default null,
    expires_in interval default null, deadline interval default null
) returns table (ord bigint, run bigint, id text, created boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    definition record;
    first jsonb;
    documents jsonb[] := inputs::jsonb[];
    bad text;
    own_tags text[];
    partition_by text[];
    due timestamptz := coalesce(start_many.at, pgflow.now()) + coalesce(start_many.delay, interval '0');
    item record;
    has_key boolean := coalesce(current_setting('pgflow_once.key', true), '') <> '';
    runs bigint[] := '{}';
    ids text[] := '{}';
    created_flags boolean[] := '{}';
begin
    select
        d.version, d.graph, d.unique_key, d.unique_scope,
        -- Whether instances of other scopes can conflict with these, which the unique index cannot detect.
        coalesce(d.unique_scope = 'global', false) or exists (
            select from pgflow.definitions o
            where o.unique_key = d.unique_key and o.unique_scope not in (d.unique_scope, 'none') and d.unique_scope <> 'none'
                and (o.unique_scope = 'global' or o.workflow = d.workflow)
        ) as overlaps
    into definition
    from pgflow.definitions d
    where d.workflow = start_many.workflow and (start_many.version is null or d.version = start_many.version)
    order by d.current_since desc nulls last, d.version desc limit 1;
    if not found then
        select string_agg(d.version::text, ', ' order by d.version) into bad from pgflow.definitions d where d.workflow = start_many.workflow;
        if bad is not null then
            raise exception using errcode = 'PF001', message = format('%s has no version %s', start_many.workflow, start_many.version),
                hint = format('Registered here: version %s. Start a worker with the app that defines version %s, or name one of these.',
                    bad, start_many.version);
        end if;
        raise exception using errcode = 'PF001', message = format('no workflow named %L is registered here', start_many.workflow),
            hint = coalesce('Known: ' || (select string_agg(distinct d.workflow, ', ') from pgflow.definitions d) || '.',
                'Start a worker with the app that defines it: pgflow worker --app module:app');
    end if;
    if cardinality(inputs) is distinct from cardinality("values") then
        raise exception using errcode = 'PF008',
            message = format('%s values but %s inputs', coalesce(cardinality("values"), 0), coalesce(cardinality(inputs), 0)),
            hint = 'Pass one input for each value, null for none.';
    end if;
    if cardinality(keys) <> cardinality("values") then
        raise exception using errcode = 'PF008', message = format('%s values but %s partition keys', cardinality("values"), cardinality(keys)),
            hint = 'Pass one key for each value, or none at all: then they are taken from the inputs.';
    end if;
    if strpos(array_to_string("values", ' '), '::') > 0 then  -- some are whole ids
        "values" := array(
            select case when starts_with(v, definition.unique_key || '::') then substr(v, length(definition.unique_key) + 3) else v end
            from unnest("values") with ordinality as given (v, ord) order by ord);
    end if;
    -- The characters of REFUSED in pgflow/core/definition/unique.py, one by one: a class such as [[:space:]] depends on the database's locale.
    select v into bad from unnest("values") v
    where v is null or length(v) not between 1 and 200 or strpos(v, '::') > 0
        or v collate "C" ~ E'[\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]' limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('%L is not a valid business value', bad),
            hint = format('A value has 1 to 200 characters, without white space, control characters or "::"; a whole id begins with %s.',
                coalesce(definition.unique_key, 'key') || '::');
    end if;
    select pgflow.json_fault(i) into bad
    from unnest(documents, inputs) as given (i, written)
    where octet_length(written) > 128 and pgflow.json_fault(i) is not null limit 1;  -- a shorter one cannot be too large or too deep
    if found then
        raise exception using errcode = 'PF006', message = 'an input ' || bad, hint = 'Pass a reference to large data instead of the data.';
    end if;
    bad := case when jsonb_typeof(metadata) <> 'object' then 'is not an object' else pgflow.json_fault(metadata, 65536) end;
    if bad is not null then
        raise exception using errcode = 'PF006', message = 'metadata ' || bad, hint = 'Pass a small object such as {"source": "import"}.';
    end if;
    own_tags := array(select jsonb_array_elements_text(coalesce(definition.graph -> 'tags', '[]')));
    if cardinality(own_tags || start_many.tags) > 32
        or exists (select from unnest(start_many.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then
        raise exception using errcode = 'PF008', message = 'invalid tags',
            hint = 'An instance has at most 32 tags, its workflow''s included, of 1 to 64 characters each, without control characters.';
    end if;
    if start_many.expires_in <= interval '0' or start_many.deadline <= interval '0' then
        raise exception using errcode = 'PF008',
            message = format('%s must be positive, got %s', case when start_many.expires_in <= interval '0' then 'expires_in' else 'deadline' end,
                to_json(least(start_many.expires_in, start_many.deadline)) #>> '{}'),
            hint = 'Pass an interval, which counts from the start: ''1 hour''.';
    end if;
    first := definition.graph #> array['steps', definition.graph ->> 'initial'];
    partition_by := array(select jsonb_array_elements_text(definition.graph -> 'partition_by'));

    if definition.overlaps then
        -- Before anything is read: the next statement sees every instance that an earlier holder of the lock started.
        perform pgflow.lock_business_ids(array(select definition.unique_key || '::' || v from unnest("values") v));
    end if;

    for item in
    with numbered as materialized (
        select
            a.ord, coalesce(a.document, definition.graph -> 'absent_input', '{}') as document, a.key,  -- null: no input was given
            nextval('pgflow.instances_run_seq') as run,
            concat_ws('::', definition.unique_key, a.value,
                case when definition.unique_scope = 'none' then left(replace(gen_random_uuid()::text, '-', ''), 8) end) as id
        from unnest("values", documents, coalesce(keys, '{}')) with ordinality as a (value, document, key, ord)
    ),
    keyed as materialized (
        select a.ord, a.document, a.key, a.run, a.id, case definition.unique_scope
            when 'workflow' then 'w ' || workflow || ' ' || a.id
            when 'version' then 'v ' || workflow || ' ' || definition.version || ' ' || a.id
            when 'global' then 'g ' || a.id
        end as unique_key
        from numbered a
    ),
    inserted as (
        insert into pgflow.instances (run, id, workflow, version, status, unique_key, input, tags, metadata, deadline)
        overriding system value
        select
            k.run, k.id, workflow, definition.version, case when due > pgflow.now() then 'pending' else 'running' end, k.unique_key, k.document,
            own_tags || start_many.tags, coalesce(definition.graph -> 'metadata', '{}') || coalesce(start_many.metadata, '{}'),
            due + coalesce(start_many.deadline, make_interval(secs => (definition.graph ->> 'deadline')::double precision))
        from keyed k
        where not definition.overlaps or pgflow.excluding_run(k.id, workflow, k.unique_key) is null
        order by k.unique_key, k.ord  -- the same order in every batch, so that two batches cannot deadlock
        on conflict (unique_key) where status in ('pending', 'running', 'waiting') do nothing
        returning instances.run
    ),
    inserted_jobs as (
        insert into pgflow.jobs (run, step, queue, key, cost, priority, max_attempts, config, state, run_at, expires_at)
        select
            k.run, definition.graph ->> 'initial', first ->> 'queue',
            case when keys is null then pgflow.partition_key(k.document, partition_by) else k.key end, coalesce((definition.graph ->> 'weight')::smallint, 1::smallint),
            coalesce(start_many.priority, (definition.graph ->> 'priority')::smallint, 0::smallint),
            (first ->> 'max_attempts')::smallint, nullif(first -> 'config', 'null'),
            case when due > pgflow.now() then 'scheduled' else 'ready' end, due, due + start_many.expires_in
        from inserted b join keyed k on k.run = b.run
        order by k.ord  -- first in, first out
    )
    select k.ord, k.id, k.unique_key, b.run
    from keyed k left join inserted b on b.run = k.run
    order by k.ord
    loop
        ord := item.ord;
        run := item.run;
        id := item.id;
        created := item.run is not null;
        if not created then  -- read again: the conflicting row may come from this batch or from a concurrent commit
            run := coalesce(
                case when definition.overlaps then pgflow.excluding_run(item.id, workflow, item.unique_key) end,
                (select max(i.run) from pgflow.instances i where i.id = item.id and i.unique_key = item.unique_key));
        end if;
        if has_key then
            runs := runs || run;
            ids := ids || id;
            created_flags := created_flags || created;
        end if;
        return next;
    end loop;

    if has_key then
        perform pgflow.answer(jsonb_build_object('runs', runs, 'ids', ids, 'created', created_flags));
    end if;

    if notify then
        perform pg_notify(pgflow.channel(), first ->> 'queue');
    end if;
end
$$;

-- Starts one instance and returns its run. Raises PF002 while another instance with its key is active.
create or replace function pgflow.start(
    workflow text, value text, input jsonb default null, version integer default null, at timestamptz default null,
    delay interval default null, tags text[] default '{}', metadata jsonb default '{}', priority smallint default null,
    notify boolean default true, expires_in interval default null, deadline interval default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    item record;
    fault text := pgflow.json_fault(input);  -- checked here, too: a value that cannot be written as text cannot be passed on
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'an input ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    select * into item
    from pgflow.start_many(workflow, array[value], array[input::text], version, at, delay, tags, metadata, priority, notify, expires_in => expires_in, deadline => deadline);
    if not item.created then
        raise exception using errcode = 'PF002', message = format('%s %L is already running, in run %s',
            coalesce((select i.workflow from pgflow.instances i where i.run = item.run), start.workflow), item.id, item.run),  -- a global key: the active run may be of another workflow
            hint = 'Wait until it has ended, cancel it, or use another value.';
    end if;
    return item.run;
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.start_many(
    text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean, text[], interval, interval
) from public;
revoke all on function pgflow.start(text, text, jsonb, integer, timestamptz, interval, text[], jsonb, smallint, boolean, interval, interval) from public;
