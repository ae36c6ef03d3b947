-- Starts many instances of one workflow: each is one instance row and its first token, in the caller's transaction.
-- A value whose key is active already is left alone: its row comes back with created = false and the active run.
-- Runs are numbered in the order given; rows are inserted in the order of their keys, so that two batches with the same keys cannot deadlock.
-- A whole business id of the workflow's key ("orderid::abc123") is accepted in place of its value.
create or replace function pgflow.start_many(
    workflow text, "values" text[], inputs text[], version integer default null, at timestamptz default null, delay interval default null,
    tags text[] default '{}', metadata jsonb default '{}', priority smallint default null, notify boolean default true
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
    due timestamptz := coalesce(start_many.at, pgflow.now()) + coalesce(start_many.delay, interval '0');
    begun record;
    is_asked_once boolean := coalesce(current_setting('pgflow_once.key', true), '') <> '';
    runs bigint[] := '{}';
    ids text[] := '{}';
    news boolean[] := '{}';
begin
    select
        d.version, d.graph, d.unique_key, d.unique_scope,
        coalesce(d.unique_scope = 'global', false) or exists (  -- instances of other scopes can exclude these: the unique index cannot decide then
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
        raise exception using errcode = 'PF008', message = 'as many inputs as values are needed',
            hint = 'Give each value its input, null when it has none.';
    end if;
    if strpos(array_to_string("values", ' '), '::') > 0 then  -- whole ids among them
        "values" := array(
            select case when starts_with(v, definition.unique_key || '::') then substr(v, length(definition.unique_key) + 3) else v end
            from unnest("values") with ordinality as given (v, ord) order by ord);
    end if;
    -- The characters of REFUSED in pgflow/core/definition/unique.py, one by one: a class such as [[:space:]] depends on the database's locale.
    select v into bad from unnest("values") v
    where v is null or length(v) not between 1 and 200 or strpos(v, '::') > 0
        or v collate "C" ~ E'[\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]' limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('%L cannot be a business value', bad),
            hint = format('A value has 1 to 200 characters, without white space, control characters or "::"; a whole id begins with %s.',
                coalesce(definition.unique_key, 'key') || '::');
    end if;
    select pgflow.json_fault(i) into bad
    from unnest(documents, inputs) as given (i, written)
    where octet_length(written) > 128 and pgflow.json_fault(i) is not null limit 1;  -- a shorter one can be neither too large nor too deep
    if found then
        raise exception using errcode = 'PF006', message = 'an input ' || bad, hint = 'Pass a reference to large data instead of the data.';
    end if;
    bad := case when jsonb_typeof(metadata) <> 'object' then 'is no object' else pgflow.json_fault(metadata) end;
    if bad is not null then
        raise exception using errcode = 'PF006', message = 'metadata that ' || bad || ' is refused', hint = 'It looks like {"source": "import"}.';
    end if;
    own_tags := array(select jsonb_array_elements_text(coalesce(definition.graph -> 'tags', '[]')));
    if cardinality(own_tags || start_many.tags) > 32
        or exists (select from unnest(start_many.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then
        raise exception using errcode = 'PF008', message = 'the tags are refused',
            hint = 'An instance has 32 tags at most, its workflow''s included, of 1 to 64 characters each, without control characters.';
    end if;
    first := definition.graph #> array['steps', definition.graph ->> 'initial'];

    if definition.overlaps then
        -- Locked before anything is read: the next statement sees every instance that another holder of the lock has started.
        perform pgflow.lock_business_ids(array(select definition.unique_key || '::' || v from unnest("values") v));
    end if;

    for begun in
    with asked as materialized (
        select
            a.ord, coalesce(a.document, definition.graph -> 'absent_input', '{}') as document,  -- null: it was left out
            nextval('pgflow.instances_run_seq') as run,
            concat_ws('::', definition.unique_key, a.value,
                case when definition.unique_scope = 'none' then left(replace(gen_random_uuid()::text, '-', ''), 8) end) as id
        from unnest("values", documents) with ordinality as a (value, document, ord)
    ),
    keyed as materialized (
        select a.ord, a.document, a.run, a.id, case definition.unique_scope
            when 'workflow' then 'w ' || workflow || ' ' || a.id
            when 'version' then 'v ' || workflow || ' ' || definition.version || ' ' || a.id
            when 'global' then 'g ' || a.id
        end as unique_key
        from asked a
    ),
    born as (
        insert into pgflow.instances (run, id, workflow, version, status, unique_key, input, tags, metadata)
        overriding system value
        select
            k.run, k.id, workflow, definition.version, case when due > pgflow.now() then 'pending' else 'running' end, k.unique_key, k.document,
            own_tags || start_many.tags, coalesce(definition.graph -> 'metadata', '{}') || coalesce(start_many.metadata, '{}')
        from keyed k
        where not definition.overlaps or pgflow.excluding_run(k.id, workflow, k.unique_key) is null
        order by k.unique_key, k.ord  -- one order everywhere: two batches of the same keys cannot deadlock
        on conflict (unique_key) where status in ('pending', 'running', 'waiting') do nothing
        returning instances.run
    ),
    tokens as (
        insert into pgflow.jobs (run, step, queue, priority, max_attempts, config, state, run_at)
        select
            k.run, definition.graph ->> 'initial', first ->> 'queue',
            coalesce(start_many.priority, (definition.graph ->> 'priority')::smallint, 0::smallint),
            (first ->> 'max_attempts')::smallint, nullif(first -> 'config', 'null'),
            case when due > pgflow.now() then 'scheduled' else 'ready' end, due
        from born b join keyed k on k.run = b.run
        order by k.ord  -- first in, first out
    )
    select k.ord, k.id, k.unique_key, b.run
    from keyed k left join born b on b.run = k.run
    order by k.ord
    loop
        ord := begun.ord;
        run := begun.run;
        id := begun.id;
        created := begun.run is not null;
        if not created then  -- asked anew: who was there first may have come from this batch, or after its statement began
            run := coalesce(
                case when definition.overlaps then pgflow.excluding_run(begun.id, workflow, begun.unique_key) end,
                (select max(i.run) from pgflow.instances i where i.id = begun.id and i.unique_key = begun.unique_key));
        end if;
        if is_asked_once then
            runs := runs || run;
            ids := ids || id;
            news := news || created;
        end if;
        return next;
    end loop;

    if is_asked_once then
        perform pgflow.answer(jsonb_build_object('runs', runs, 'ids', ids, 'created', news));
    end if;

    if notify then
        perform pg_notify(pgflow.channel(), first ->> 'queue');
    end if;
end
$$;

-- Starts one instance and returns its run; refuses (PF002) while another one with its key is active.
create or replace function pgflow.start(
    workflow text, value text, input jsonb default null, version integer default null, at timestamptz default null,
    delay interval default null, tags text[] default '{}', metadata jsonb default '{}', priority smallint default null,
    notify boolean default true
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    begun record;
    fault text := pgflow.json_fault(input);  -- here, too: what cannot be written out could not be passed on either
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'an input ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    select * into begun
    from pgflow.start_many(workflow, array[value], array[input::text], version, at, delay, tags, metadata, priority, notify);
    if not begun.created then
        raise exception using errcode = 'PF002', message = format('%s %L is already running, in run %s',
            coalesce((select i.workflow from pgflow.instances i where i.run = begun.run), start.workflow), begun.id, begun.run),  -- a global key: of another one
            hint = 'Wait until it has ended, cancel it, or use another value.';
    end if;
    return begun.run;
end
$$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.start_many(text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean) from public;
revoke all on function pgflow.start(text, text, jsonb, integer, timestamptz, interval, text[], jsonb, smallint, boolean) from public;
