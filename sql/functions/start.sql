-- Starts many instances of one workflow, each an instance row and its first job, in the caller's transaction.
-- A value whose key is already active is skipped: its row returns created = false and the active run.
-- Runs are numbered in the order given. Rows are inserted in the order of their keys, so that two batches with the same keys cannot deadlock.
-- A whole business id of the workflow's key ("orderid::abc123") is accepted in place of its value.
-- It is cancelled if no worker starts it within `expires_in`, and fails at its `deadline`, by default the workflow's; both count from its start.
-- With an idempotency `key` the call raises PF013 if that was used before, also for another call; else its answer is recorded under the key, with `call`.
-- Drops the earlier signatures: two overloads would be ambiguous, and calls of an older pgflow match these.
drop function if exists pgflow.start_many(
    text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean, text[], interval, interval
);
drop function if exists pgflow.start_many(text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean);
drop function if exists pgflow.start(text, text, jsonb, integer, timestamptz, interval, text[], jsonb, smallint, boolean);

create or replace function pgflow.start_many(
    workflow text, "values" text[], inputs text[], version integer default null, at timestamptz default null, delay interval default null,
    tags text[] default '{}', metadata jsonb default '{}', priority smallint default null, notify boolean default true, keys text[] default null,
    expires_in interval default null, deadline interval default null, key text default null, call text default null
) returns table (ord bigint, run bigint, id text, created boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    definition record;
    graph jsonb;
    first jsonb;
    documents jsonb[] := inputs::jsonb[];
    bad text;
    own_tags text[] := '{}';
    own_metadata jsonb;
    absent_input jsonb;
    partition_by text[];
    weight smallint;
    urgency smallint;
    tries smallint;
    instant timestamptz := pgflow.now();
    due timestamptz := coalesce(start_many.at, instant) + coalesce(start_many.delay, interval '0');
    deadline_at timestamptz;
    expires_at timestamptz;
    is_shared boolean := false;
    own_key text;
    holder bigint;
    answer jsonb;
    item record;
    has_key boolean;
    runs bigint[];
    ids text[];
    own_keys text[];
    inserted bigint;
    has_all boolean;
    created_flags boolean[] := '{}';
begin
    -- || decompresses a large graph once, instead of at each access.
    if start_many.version is not null then
        select d.version, d.graph || '{}' as graph, d.unique_key, d.unique_scope into definition
        from pgflow.definitions d
        where d.workflow = start_many.workflow and d.version = start_many.version;
    else
        select d.version, d.graph || '{}' as graph, d.unique_key, d.unique_scope into definition
        from pgflow.definitions d
        where d.workflow = start_many.workflow
        order by d.current_since desc nulls last, d.version desc limit 1;
    end if;
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
    graph := definition.graph;
    if definition.unique_scope <> 'none' then
        -- Whether instances of other scopes can conflict with these, which the unique index cannot detect.
        is_shared := definition.unique_scope = 'global' or exists (
            select from pgflow.definitions o
            where o.unique_key = definition.unique_key and o.unique_scope not in (definition.unique_scope, 'none')
                and (o.unique_scope = 'global' or o.workflow = start_many.workflow));
    end if;
    if strpos(array_to_string("values", ' '), '::') > 0 then  -- some are whole ids
        "values" := array(
            select case when starts_with(v, definition.unique_key || '::') then substr(v, length(definition.unique_key) + 3) else v end
            from unnest("values") with ordinality as given (v, ord) order by ord);
    end if;
    -- Most calls start one instance, and each query of a call costs as much as all its expressions: so one plain value, and one short input, are
    -- checked without.
    if (cardinality("values") = 1 and "values"[1] collate "C" ~ '^[!-9;-~]{1,200}$') is not true then
        -- The characters of REFUSED in pgflow/core/definition/unique.py, one by one: a class such as [[:space:]] depends on the database's locale.
        select v into bad from unnest("values") v
        where v is null or length(v) not between 1 and 200 or strpos(v, '::') > 0
            or v collate "C" ~ E'[\\u0001-\\u0020\\u007f-\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]' limit 1;
        if found then
            raise exception using errcode = 'PF008', message = format('%L is not a valid business value', bad),
                hint = format('A value has 1 to 200 characters, without white space, control characters or "::"; a whole id begins with %s.',
                    coalesce(definition.unique_key, 'key') || '::');
        end if;
    end if;
    bad := null;
    if cardinality(documents) > 1 or octet_length(inputs[1]) > 128 then  -- a shorter one cannot be too large or too deep
        select pgflow.json_fault(i) into bad
        from unnest(documents, inputs) as given (i, written)
        where octet_length(written) > 128 and pgflow.json_fault(i) is not null limit 1;
    end if;
    if bad is not null then
        raise exception using errcode = 'PF006', message = 'an input ' || bad, hint = 'Pass a reference to large data instead of the data.';
    end if;
    if metadata <> '{}' then
        bad := case when jsonb_typeof(metadata) <> 'object' then 'is not an object' else pgflow.json_fault(metadata, 65536) end;
        if bad is not null then
            raise exception using errcode = 'PF006', message = 'metadata ' || bad, hint = 'Pass a small object such as {"source": "import"}.';
        end if;
    end if;
    if graph ? 'tags' then
        own_tags := array(select jsonb_array_elements_text(graph -> 'tags'));
    end if;
    if start_many.tags <> '{}' then
        own_tags := own_tags || start_many.tags;
        if cardinality(own_tags) > 32
            or exists (select from unnest(start_many.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then
            raise exception using errcode = 'PF008', message = 'invalid tags',
                hint = 'An instance has at most 32 tags, its workflow''s included, of 1 to 64 characters each, without control characters.';
        end if;
    end if;
    if start_many.expires_in <= interval '0' or start_many.deadline <= interval '0' then
        raise exception using errcode = 'PF008',
            message = format('%s must be positive, got %s', case when start_many.expires_in <= interval '0' then 'expires_in' else 'deadline' end,
                to_json(least(start_many.expires_in, start_many.deadline)) #>> '{}'),
            hint = 'Pass an interval, which counts from the start: ''1 hour''.';
    end if;
    first := graph #> array['steps', graph ->> 'initial'];
    if graph ? 'partition_by' then
        partition_by := array(select jsonb_array_elements_text(graph -> 'partition_by'));
    end if;
    own_metadata := coalesce(graph -> 'metadata', '{}') || coalesce(start_many.metadata, '{}');
    absent_input := coalesce(graph -> 'absent_input', '{}');
    weight := coalesce((graph ->> 'weight')::smallint, 1::smallint);
    urgency := coalesce(start_many.priority, (graph ->> 'priority')::smallint, 0::smallint);
    tries := (first ->> 'max_attempts')::smallint;
    deadline_at := due + coalesce(start_many.deadline, make_interval(secs => (graph ->> 'deadline')::double precision));
    expires_at := due + start_many.expires_in;

    if is_shared then
        -- Before anything is read: the next statement sees every instance that an earlier holder of the lock started.
        perform pgflow.lock_business_ids(array(select definition.unique_key || '::' || v from unnest("values") v));
    end if;

    if cardinality("values") = 1 then  -- the same as the statement for many, in statements with less to set up
        ord := 1;
        run := nextval('pgflow.instances_run_seq');
        id := concat_ws('::', definition.unique_key, "values"[1],
            case when definition.unique_scope = 'none' then left(replace(gen_random_uuid()::text, '-', ''), 8) end);
        own_key := case definition.unique_scope
            when 'workflow' then 'w ' || workflow || ' ' || id
            when 'version' then 'v ' || workflow || ' ' || definition.version || ' ' || id
            when 'global' then 'g ' || id
        end;
        documents[1] := coalesce(documents[1], absent_input);
        created := true;
        answer := jsonb_build_object('runs', jsonb_build_array(run), 'ids', jsonb_build_array(id), 'created', '[true]'::jsonb);
        if start_many.key is not null then
            insert into pgflow.requests (key, call, answer)
            select start_many.key, start_many.call, jsonb_build_array(answer)
            where length(start_many.key) between 1 and 200
            on conflict do nothing;
            if not found then
                perform pgflow.begin_request(start_many.key, start_many.call);  -- raises what is wrong with it
            end if;
        end if;
        holder := null;
        if is_shared then
            holder := pgflow.excluding_run(id, workflow, own_key);
        end if;
        if holder is null then
            insert into pgflow.instances (run, id, workflow, version, status, unique_key, input, tags, metadata, deadline)
            overriding system value
            values (
                run, id, workflow, definition.version, case when due > instant then 'pending' else 'running' end, own_key, documents[1],
                own_tags, own_metadata, deadline_at
            )
            on conflict (unique_key) where status in ('pending', 'running', 'waiting') do nothing;
            created := found;
        else
            created := false;
        end if;
        if created then
            insert into pgflow.jobs (run, step, queue, key, cost, priority, max_attempts, config, state, run_at, expires_at)
            values (
                run, graph ->> 'initial', first ->> 'queue',
                case when keys is not null then keys[1] when partition_by is not null then pgflow.partition_key(documents[1], partition_by) end,
                weight, urgency, tries, nullif(first -> 'config', 'null'), case when due > instant then 'scheduled' else 'ready' end, due, expires_at
            );
        else  -- read again: the conflicting row may come from a concurrent commit
            run := coalesce(
                holder, case when is_shared then pgflow.excluding_run(id, workflow, own_key) end,
                (select max(i.run) from pgflow.instances i where i.id = start_many.id and i.unique_key = own_key));
            answer := jsonb_build_object('runs', jsonb_build_array(run), 'ids', jsonb_build_array(id), 'created', '[false]'::jsonb);
            if start_many.key is not null then
                update pgflow.requests r set answer = jsonb_build_array(jsonb_build_object('runs', array[run], 'ids', array[start_many.id], 'created', array[false]))
                where r.key = start_many.key;
            end if;
        end if;
        if coalesce(current_setting('pgflow_once.key', true), '') <> '' then
            perform pgflow.answer(answer);
        end if;
        if notify then
            perform pg_notify(pgflow.channel(), first ->> 'queue');
        end if;
        return next;
        return;
    end if;

    if start_many.key is not null then
        perform pgflow.begin_request(start_many.key, start_many.call);
    end if;
    has_key := coalesce(current_setting('pgflow_once.key', true), '') <> '';
    if array_position(documents, null) is not null then
        documents := array(select coalesce(d, absent_input) from unnest(documents) with ordinality as given (d, ord) order by ord);
    end if;
    runs := array(select nextval('pgflow.instances_run_seq') from generate_series(1, cardinality("values")));
    ids := array(
        select concat_ws('::', definition.unique_key, v,
            case when definition.unique_scope = 'none' then left(replace(gen_random_uuid()::text, '-', ''), 8) end)
        from unnest("values") with ordinality as given (v, ord) order by ord);
    own_keys := array(
        select case definition.unique_scope
            when 'workflow' then 'w ' || workflow || ' ' || v
            when 'version' then 'v ' || workflow || ' ' || definition.version || ' ' || v
            when 'global' then 'g ' || v
        end
        from unnest(ids) with ordinality as given (v, ord) order by ord);
    -- Statements over arrays, without joins: the planner expects ten rows of an array, and would compare each of a thousand with each other one.
    insert into pgflow.instances (run, id, workflow, version, status, unique_key, input, tags, metadata, deadline)
    overriding system value
    select
        a.run, a.id, workflow, definition.version, case when due > instant then 'pending' else 'running' end, a.own_key, a.document,
        own_tags, own_metadata, deadline_at
    from unnest(runs, ids, own_keys, documents) with ordinality as a (run, id, own_key, document, ord)
    where not is_shared or pgflow.excluding_run(a.id, workflow, a.own_key) is null
    order by a.own_key, a.ord  -- the same order in every batch, so that two batches cannot deadlock
    on conflict (unique_key) where status in ('pending', 'running', 'waiting') do nothing;
    get diagnostics inserted = row_count;
    has_all := inserted = cardinality(runs);
    insert into pgflow.jobs (run, step, queue, key, cost, priority, max_attempts, config, state, run_at, expires_at)
    select
        a.run, graph ->> 'initial', first ->> 'queue',
        case when keys is not null then a.key when partition_by is not null then pgflow.partition_key(a.document, partition_by) end,
        weight, urgency, tries, nullif(first -> 'config', 'null'),
        case when due > instant then 'scheduled' else 'ready' end, due, expires_at
    from unnest(runs, documents, keys) with ordinality as a (run, document, key, ord)
    where has_all or exists (select from pgflow.instances i where i.run = a.run)
    order by a.ord;  -- first in, first out

    for item in
    select a.ord, a.run, a.id, a.own_key, has_all or exists (select from pgflow.instances i where i.run = a.run) as created
    from unnest(runs, ids, own_keys) with ordinality as a (run, id, own_key, ord)
    order by a.ord
    loop
        ord := item.ord;
        run := item.run;
        id := item.id;
        created := item.created;
        if not created then  -- read again: the conflicting row may come from this batch or from a concurrent commit
            run := coalesce(
                case when is_shared then pgflow.excluding_run(item.id, workflow, item.own_key) end,
                (select max(i.run) from pgflow.instances i where i.id = item.id and i.unique_key = item.own_key));
            runs[ord] := run;
        end if;
        if has_key then
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
    text, text[], text[], integer, timestamptz, interval, text[], jsonb, smallint, boolean, text[], interval, interval, text, text
) from public;
revoke all on function pgflow.start(text, text, jsonb, integer, timestamptz, interval, text[], jsonb, smallint, boolean, interval, interval) from public;
