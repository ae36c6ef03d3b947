-- Returns the unique key of an execution, by the `unique` of its task's options: its `args` are the names of the arguments that are compared,
-- null for all, empty for none. unique_key() in pgflow/core/definition/unique_task.py returns the same.
create or replace function pgflow.task_key(task text, uniqueness jsonb, args jsonb, queue text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select encode(sha256(convert_to(jsonb_build_array(
        task,
        case when (uniqueness ->> 'queue')::boolean then queue end,
        case
            when jsonb_typeof(uniqueness -> 'args') is distinct from 'array' then args
            when uniqueness -> 'args' <> '[]' then coalesce((
                select jsonb_object_agg(e.key, e.value) from jsonb_each(args) e where uniqueness -> 'args' ? e.key), '{}')
        end
    )::text, 'UTF8')), 'hex')
$$;

-- Enqueues a task once for each of `args`, which are JSON objects by parameter name, in the caller's transaction: one row of `jobs` each.
-- Jobs are numbered in the order given. `keys` are their unique keys and `uniqueness` is what to do where one is taken; by default both follow
-- from the task's options. A key is taken by a live job, and with a `period` (seconds) also by one that completed less than that ago. Then
-- `id` is that of the holder and `created` is false; `on_conflict` "skip" returns null as the id, "raise" raises PF018 and enqueues nothing,
-- "replace" replaces the fields in `replace` (args, run_at, priority) of a holder that has not started.
-- `partition_keys` are those of the jobs; without them they are taken from the arguments. With an idempotency `key` the call raises PF013 if that was used
-- before, also for another call; else its answer is recorded under the key, with `call`.
-- Drops the earlier signature: two overloads would be ambiguous, and calls of an older pgflow match this one.
drop function if exists pgflow.enqueue_many(
    text, text[], timestamptz, interval, text, smallint, smallint, text[], jsonb, boolean, text[], jsonb, text[], interval
);

create or replace function pgflow.enqueue_many(
    task text, args text[], at timestamptz default null, delay interval default null, queue text default null, priority smallint default null,
    max_attempts smallint default null, tags text[] default '{}', metadata jsonb default '{}', notify boolean default true,
    keys text[] default null, uniqueness jsonb default null, partition_keys text[] default null, expires_in interval default null,
    key text default null, call text default null
) returns table (ord bigint, id bigint, created boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    options jsonb;
    documents jsonb[] := coalesce(args::jsonb[], '{}');
    bad text;
    own_tags text[] := '{}';
    own_metadata jsonb;
    instant timestamptz := pgflow.now();
    due timestamptz := coalesce(enqueue_many.at, instant) + coalesce(enqueue_many.delay, interval '0');
    expires_at timestamptz;
    target text;
    urgency smallint;
    ids bigint[];
    holders bigint[];
    policy text;
    period interval;
    taken bigint;
    weight smallint;
    tries smallint;
begin
    select t.options into options from pgflow.tasks t where t.name = enqueue_many.task;
    if not found then
        raise exception using errcode = 'PF016', message = format('no task named %L is registered here', enqueue_many.task),
            hint = coalesce('Known: ' || (select string_agg(t.name, ', ' order by t.name) from pgflow.tasks t) || '.',
                'Start a worker with the app that defines it: pgflow worker --app module:app');
    end if;
    if cardinality(documents) = 1 then
        -- As below, without a query: most calls enqueue one, and each query of a call costs as much as all its expressions.
        bad := case
            when jsonb_typeof(documents[1]) is distinct from 'object' then 'are not an object'
            when octet_length(args[1]) > 128 then pgflow.json_fault(documents[1])
        end;
    else
        select case when jsonb_typeof(a) is distinct from 'object' then 'are not an object' else pgflow.json_fault(a) end into bad
        from unnest(documents, args) as given (a, written)
        where jsonb_typeof(a) is distinct from 'object'
            or octet_length(written) > 128 and pgflow.json_fault(a) is not null limit 1;  -- a shorter one cannot be too large or too deep
    end if;
    if bad is not null then
        raise exception using errcode = 'PF006', message = 'the arguments ' || bad,
            hint = 'Pass an object by parameter name, such as {"order_id": 7}, and a reference to large data instead of the data.';
    end if;
    if metadata <> '{}' then
        bad := case when jsonb_typeof(metadata) <> 'object' then 'is not an object' else pgflow.json_fault(metadata) end;
        if bad is not null then
            raise exception using errcode = 'PF006', message = 'metadata ' || bad, hint = 'Pass a small object such as {"source": "import"}.';
        end if;
    end if;
    if options ? 'tags' then
        own_tags := array(select jsonb_array_elements_text(options -> 'tags'));
    end if;
    if enqueue_many.tags <> '{}' then
        own_tags := own_tags || enqueue_many.tags;
        if cardinality(own_tags) > 32
            or exists (select from unnest(enqueue_many.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then
            raise exception using errcode = 'PF008', message = 'invalid tags',
                hint = 'A task has at most 32 tags, those of its definition included, of 1 to 64 characters each, without control characters.';
        end if;
    end if;
    target := coalesce(enqueue_many.queue, options ->> 'queue', 'default');
    if target !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' then
        raise exception using errcode = 'PF008', message = format('%L is not a valid queue', left(target, 100)),
            hint = 'A queue has 1 to 63 letters, digits, underscores, dots and hyphens.';
    end if;
    if enqueue_many.max_attempts < 1 then
        raise exception using errcode = 'PF008', message = format('max_attempts must be between 1 and 32767, got %s', enqueue_many.max_attempts);
    end if;

    if enqueue_many.expires_in <= interval '0' then
        raise exception using errcode = 'PF008', message = format('expires_in must be positive, got %s', to_json(enqueue_many.expires_in) #>> '{}'),
            hint = 'Pass an interval, which counts from when the job is due: ''1 hour''.';
    end if;
    urgency := coalesce(enqueue_many.priority, (options ->> 'priority')::smallint, 0::smallint);
    uniqueness := coalesce(uniqueness, options -> 'unique');
    if uniqueness is not null and keys is null then
        keys := array(select pgflow.task_key(task, uniqueness, a, target) from unnest(documents) with ordinality as d (a, ord) order by ord);
    end if;
    if cardinality(keys) <> cardinality(documents) then
        raise exception using errcode = 'PF008', message = format('%s arguments but %s unique keys', cardinality(documents), cardinality(keys));
    end if;
    if partition_keys is null and options ? 'partition_by' then
        partition_keys := array(select pgflow.job_key(options, a) from unnest(documents) with ordinality as d (a, ord) order by ord);
    end if;
    own_tags := nullif(own_tags, '{}');
    own_metadata := nullif(coalesce(options -> 'metadata', '{}') || coalesce(enqueue_many.metadata, '{}'), '{}');
    weight := coalesce((options ->> 'weight')::smallint, 1::smallint);
    tries := coalesce(enqueue_many.max_attempts, (options ->> 'max_attempts')::smallint, 5::smallint);
    expires_at := due + coalesce(enqueue_many.expires_in, make_interval(secs => (options ->> 'expires_in')::double precision));

    if keys is null then  -- each call becomes one row of `jobs`: nothing else can happen
        if cardinality(documents) = 1 then
            ids := array[nextval('pgflow.jobs_id_seq')];
        else
            ids := array(select nextval('pgflow.jobs_id_seq') from generate_series(1, cardinality(documents)));
        end if;
        if enqueue_many.key is not null then
            insert into pgflow.requests (key, call, answer)
            select
                enqueue_many.key, enqueue_many.call,
                jsonb_build_array(jsonb_build_object('ids', ids, 'created', array_fill(true, array[cardinality(ids)])))
            where length(enqueue_many.key) between 1 and 200
            on conflict do nothing;
            if not found then
                perform pgflow.begin_request(enqueue_many.key, enqueue_many.call);  -- raises what is wrong with it
            end if;
        end if;
        if cardinality(documents) = 1 then
            insert into pgflow.jobs (
                id, kind, step, queue, key, cost, priority, max_attempts, args, tags, metadata, enqueued_at, state, run_at, expires_at
            )
            overriding system value
            values (
                ids[1], 'task', task, target, partition_keys[1], weight, urgency, tries, documents[1], own_tags, own_metadata,
                instant, case when due > instant then 'scheduled' else 'ready' end, due, expires_at
            );
        else
            insert into pgflow.jobs (
                id, kind, step, queue, key, cost, priority, max_attempts, args, tags, metadata, enqueued_at, state, run_at, expires_at
            )
            overriding system value
            select
                a.id, 'task', task, target, a.partition_key, weight, urgency, tries, a.document, own_tags, own_metadata,
                instant, case when due > instant then 'scheduled' else 'ready' end, due, expires_at
            from unnest(documents, ids, partition_keys) as a (document, id, partition_key);
        end if;
    else
        if enqueue_many.key is not null then
            perform pgflow.begin_request(enqueue_many.key, enqueue_many.call);
        end if;
        policy := coalesce(uniqueness ->> 'on_conflict', 'existing');
        period := make_interval(secs => (uniqueness ->> 'period')::double precision);
        ids := array_fill(null::bigint, array[cardinality(documents)]);
        holders := ids;

        -- Each item either inserts its job or meets the holder of its key; one whose holder is deleted by another session before it is found tries again.
        for pass in 1 .. 10 loop
        if period is not null then
            holders := array(
                select coalesce(h.id, r.id)
                from unnest(keys, holders) with ordinality as h (key, id, ord)
                left join lateral (
                    select r.id from pgflow.task_results r
                    where r.unique_key = h.key and r.status = 'completed' and r.finished_at > pgflow.now() - period
                    order by r.finished_at desc limit 1
                ) r on h.id is null
                order by h.ord);
        end if;
        with numbered as materialized (
            select a.ord, a.document, a.key, a.partition_key, nextval('pgflow.jobs_id_seq') as id
            from unnest(documents, keys, ids, holders, partition_keys) with ordinality as a (document, key, id, holder, partition_key, ord)
            where a.id is null and a.holder is null
            order by a.ord  -- first in, first out
        ),
        inserted as (
            insert into pgflow.jobs (
                id, kind, step, queue, key, cost, priority, max_attempts, args, tags, metadata, enqueued_at, state, run_at, unique_key, expires_at
            )
            overriding system value
            select
                a.id, 'task', task, target, a.partition_key, weight, urgency, tries, a.document, own_tags, own_metadata,
                instant, case when due > instant then 'scheduled' else 'ready' end, due, a.key, expires_at
            from numbered a
            order by a.key, a.ord  -- the same order in every batch, so that two batches cannot deadlock
            on conflict (unique_key) where unique_key is not null do nothing
            returning id
        )
        select array_agg(coalesce(g.id, i.id) order by g.ord) into ids
        from unnest(ids) with ordinality as g (id, ord)
        left join numbered n on n.ord = g.ord
        left join inserted i on i.id = n.id;
        if period is not null then  -- one that completed while the insert waited for it: only now its row is visible
            with late as (
                select r.id, n.id as own
                from unnest(keys, ids) as n (key, id)
                cross join lateral (
                    select r.id from pgflow.task_results r
                    where r.unique_key = n.key and r.status = 'completed' and r.finished_at > pgflow.now() - period
                    order by r.finished_at desc limit 1
                ) r
                where n.id is not null
            ),
            gone as (
                delete from pgflow.jobs j where j.id = any (array(select l.own from late l))
            )
            select array_agg(case when l.own is null then g.id end order by g.ord), array_agg(coalesce(g.holder, l.id) order by g.ord) into ids, holders
            from unnest(ids, holders) with ordinality as g (id, holder, ord)
            left join late l on l.own = g.id;
        end if;
        holders := array(  -- live, or ended since the insert met it
            select case when h.id is null then coalesce(h.holder, (
                select j.id from pgflow.jobs j where j.unique_key = h.key
            ), (
                select r.id from pgflow.task_results r where r.unique_key = h.key and r.finished_at > pgflow.now() - interval '1 minute'
                order by r.finished_at desc limit 1
            )) end
            from unnest(keys, ids, holders) with ordinality as h (key, id, holder, ord)
            order by h.ord);
        exit when not exists (select from unnest(ids, holders) as g (id, holder) where g.id is null and g.holder is null);
        end loop;
    end if;

    -- A sequence behind its table, as after a copy of the data alone, returns ids of ended tasks, and such a job could never end. The last entry of
    -- the index is nearly always below these ids: above them it is only where another session has ended later tasks.
    if (select max(r.id) from pgflow.task_results r) >= (select min(g) from unnest(ids) g)
        and exists (select from unnest(ids) g (id) join pgflow.task_results r on r.id = any (array[g.id])) then
        raise unique_violation using message = 'the id of a new job is that of an ended task', table = 'jobs', constraint = 'jobs_pkey',
            schema = (select c.relnamespace::regnamespace::text from pg_class c where c.oid = 'pgflow.jobs'::regclass);
    end if;

    if policy = 'raise' and array_position(ids, null) is not null then
        taken := holders[array_position(ids, null)];
        raise exception using errcode = 'PF018', detail = taken,
            message = case
                when taken = any (ids) then format('%s is not enqueued: two of the calls have one unique key', task)
                else format('%s is not enqueued: job %s has its unique key', task, taken) end,
            hint = 'Use that job: on_conflict "existing" returns it.';
    end if;
    if policy = 'replace' then
        perform from pgflow.jobs j  -- in the order of keys, as the inserts
        where j.id = any (holders) and j.state in ('ready', 'scheduled') and j.attempt = 0
        order by j.unique_key
        for no key update;
        if uniqueness -> 'replace' ? 'args' then  -- the objects of arguments in a payload store
            insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)
            select j.step, '', 'input', '', j.args -> 'pgflow:ref' from pgflow.jobs j
            where j.id = any (holders) and j.state in ('ready', 'scheduled') and j.attempt = 0 and pg_column_size(j.args) < 512
                and jsonb_typeof(j.args -> 'pgflow:ref') = 'object';
        end if;
        update pgflow.jobs j
        set args = case when uniqueness -> 'replace' ? 'args' then g.document else j.args end,
            key = case when uniqueness -> 'replace' ? 'args' then g.partition_key else j.key end,
            priority = case when uniqueness -> 'replace' ? 'priority' then urgency else j.priority end,
            run_at = case when uniqueness -> 'replace' ? 'run_at' then due else j.run_at end,
            state = case when uniqueness -> 'replace' ? 'run_at' then case when due > instant then 'scheduled' else 'ready' end else j.state end
        from (
            select distinct on (h.holder) h.holder, h.document, h.partition_key
            from unnest(holders, documents, partition_keys) with ordinality as h (holder, document, partition_key, ord) where h.holder is not null
            order by h.holder, h.ord desc  -- of several items with one key the last one
        ) g
        where j.id = g.holder and j.state in ('ready', 'scheduled') and j.attempt = 0;
    end if;

    if coalesce(current_setting('pgflow_once.key', true), '') <> '' then
        perform pgflow.answer(jsonb_build_object(
            'ids', array(select coalesce(g.id, case when policy <> 'skip' then g.holder end) from unnest(ids, holders) with ordinality as g (id, holder, ord) order by g.ord),
            'created', array(select g.id is not null from unnest(ids) with ordinality as g (id, ord) order by g.ord)));
    end if;
    if notify and due <= instant and cardinality(ids) > 0 then
        perform pg_notify(pgflow.channel(), target);
    end if;
    return query
    select g.ord, coalesce(g.id, case when policy <> 'skip' then g.holder end), g.id is not null
    from unnest(ids, holders) with ordinality as g (id, holder, ord);
end
$$;

-- Enqueues a task and returns the id of its job: pgflow.enqueue('send_receipt', '{"order_id": 7}').
create or replace function pgflow.enqueue(
    task text, args jsonb default '{}', at timestamptz default null, delay interval default null, queue text default null,
    priority smallint default null, tags text[] default '{}', metadata jsonb default '{}', notify boolean default true,
    expires_in interval default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    fault text := pgflow.json_fault(args);  -- checked here, too: a value that cannot be written as text cannot be passed on
begin
    if fault is not null then
        raise exception using errcode = 'PF006', message = 'the arguments ' || fault, hint = 'Pass a reference to large data instead of the data.';
    end if;
    return (
        select e.id
        from pgflow.enqueue_many(task, array[coalesce(args, '{}')::text], at, delay, queue, priority, null, tags, metadata, notify, expires_in => expires_in) e
    );
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.enqueue_many(
    text, text[], timestamptz, interval, text, smallint, smallint, text[], jsonb, boolean, text[], jsonb, text[], interval, text, text
) from public;
revoke all on function pgflow.enqueue(text, jsonb, timestamptz, interval, text, smallint, text[], jsonb, boolean, interval) from public;
