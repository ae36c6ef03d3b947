-- Enqueues a task once for each of `args`, which are JSON objects by parameter name, in the caller's transaction: one row of `jobs` each.
-- Jobs are numbered in the order given.
create or replace function pgflow.enqueue_many(
    task text, args text[], at timestamptz default null, delay interval default null, queue text default null, priority smallint default null,
    max_attempts smallint default null, tags text[] default '{}', metadata jsonb default '{}', notify boolean default true
) returns table (ord bigint, id bigint, created boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    options jsonb;
    documents jsonb[] := args::jsonb[];
    bad text;
    own_tags text[];
    due timestamptz := coalesce(enqueue_many.at, pgflow.now()) + coalesce(enqueue_many.delay, interval '0');
    target text;
    ids bigint[];
begin
    select t.options into options from pgflow.tasks t where t.name = enqueue_many.task;
    if not found then
        raise exception using errcode = 'PF016', message = format('no task named %L is registered here', enqueue_many.task),
            hint = coalesce('Known: ' || (select string_agg(t.name, ', ' order by t.name) from pgflow.tasks t) || '.',
                'Start a worker with the app that defines it: pgflow worker --app module:app');
    end if;
    select case when jsonb_typeof(a) is distinct from 'object' then 'are not an object' else pgflow.json_fault(a) end into bad
    from unnest(documents, args) as given (a, written)
    where jsonb_typeof(a) is distinct from 'object'
        or octet_length(written) > 128 and pgflow.json_fault(a) is not null limit 1;  -- a shorter one cannot be too large or too deep
    if found then
        raise exception using errcode = 'PF006', message = 'the arguments ' || bad,
            hint = 'Pass an object by parameter name, such as {"order_id": 7}, and a reference to large data instead of the data.';
    end if;
    bad := case when jsonb_typeof(metadata) <> 'object' then 'is not an object' else pgflow.json_fault(metadata) end;
    if bad is not null then
        raise exception using errcode = 'PF006', message = 'metadata ' || bad, hint = 'Pass a small object such as {"source": "import"}.';
    end if;
    own_tags := array(select jsonb_array_elements_text(coalesce(options -> 'tags', '[]')));
    if cardinality(own_tags || enqueue_many.tags) > 32
        or exists (select from unnest(enqueue_many.tags) t where t is null or length(t) not between 1 and 64 or t ~ E'[\\u0001-\\u001f\\u007f-\\u009f]') then
        raise exception using errcode = 'PF008', message = 'invalid tags',
            hint = 'A task has at most 32 tags, those of its definition included, of 1 to 64 characters each, without control characters.';
    end if;
    target := coalesce(enqueue_many.queue, options ->> 'queue', 'default');
    if target !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' then
        raise exception using errcode = 'PF008', message = format('%L is not a valid queue', left(target, 100)),
            hint = 'A queue has 1 to 63 letters, digits, underscores, dots and hyphens.';
    end if;
    if enqueue_many.max_attempts < 1 then
        raise exception using errcode = 'PF008', message = format('max_attempts must be between 1 and 32767, got %s', enqueue_many.max_attempts);
    end if;

    with inserted as (
        insert into pgflow.jobs (kind, step, queue, priority, max_attempts, args, tags, metadata, enqueued_at, state, run_at)
        select
            'task', task, target, coalesce(enqueue_many.priority, (options ->> 'priority')::smallint, 0::smallint),
            coalesce(enqueue_many.max_attempts, (options ->> 'max_attempts')::smallint, 5::smallint), a.document,
            nullif(own_tags || enqueue_many.tags, '{}'), nullif(coalesce(options -> 'metadata', '{}') || coalesce(enqueue_many.metadata, '{}'), '{}'),
            pgflow.now(), case when due > pgflow.now() then 'scheduled' else 'ready' end, due
        from unnest(documents) with ordinality as a (document, ord)
        order by a.ord  -- first in, first out
        returning id
    )
    select coalesce(array_agg(i.id order by i.id), '{}') into ids from inserted i;

    perform pgflow.answer(jsonb_build_object('ids', ids)) where coalesce(current_setting('pgflow_once.key', true), '') <> '';
    if notify and due <= pgflow.now() and cardinality(ids) > 0 then
        perform pg_notify(pgflow.channel(), target);
    end if;
    return query select i.ord, i.id, true from unnest(ids) with ordinality as i (id, ord);
end
$$;

-- Enqueues a task and returns the id of its job: pgflow.enqueue('send_receipt', '{"order_id": 7}').
create or replace function pgflow.enqueue(
    task text, args jsonb default '{}', at timestamptz default null, delay interval default null, queue text default null,
    priority smallint default null, tags text[] default '{}', metadata jsonb default '{}', notify boolean default true
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
        from pgflow.enqueue_many(task, array[coalesce(args, '{}')::text], at, delay, queue, priority, null, tags, metadata, notify) e
    );
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.enqueue_many(text, text[], timestamptz, interval, text, smallint, smallint, text[], jsonb, boolean) from public;
revoke all on function pgflow.enqueue(text, jsonb, timestamptz, interval, text, smallint, text[], jsonb, boolean) from public;
