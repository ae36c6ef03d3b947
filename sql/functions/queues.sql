-- Returns the names of queues that are in use: those with settings, a live worker, a definition, or a job that is ready or running.
create or replace function pgflow.known_queues() returns setof text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with recursive plain (queue) as (  -- one look into an index for each queue
        (select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is null order by j.queue limit 1)
        union all
        select (select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is null and j.queue > p.queue order by j.queue limit 1)
        from plain p where p.queue is not null
    ),
    keyed (queue) as (
        (select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is not null order by j.queue limit 1)
        union all
        select (select j.queue from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue > k.queue order by j.queue limit 1)
        from keyed k where k.queue is not null
    )
    select p.queue from plain p where p.queue is not null
    union select k.queue from keyed k where k.queue is not null
    union select j.queue from pgflow.jobs j where j.state = 'running'
    union select q.name from pgflow.queues q
    union select n.queue from pgflow.node_queues n
    union select u.queue from pgflow.workers w cross join unnest(w.queues) as u (queue) where pgflow.is_leased(w.lease_expires_at, w.lease)
    union select d.graph ->> 'orchestration_queue' from pgflow.definitions d where d.graph ->> 'orchestration_queue' is not null
    union select jsonb_path_query(d.graph, '$.steps.*.queue') #>> '{}' from pgflow.definitions d
    union select t.options ->> 'queue' from pgflow.tasks t where t.options ->> 'queue' is not null
    order by 1
$$;

-- Raises PF020 for a queue that is not in use.
create or replace function pgflow.require_queue(queue text) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    known text[] := array(select pgflow.known_queues());
begin
    -- A queue with nothing but scheduled or parked jobs is found by a scan, which reads the table to its end for a wrong name.
    if not require_queue.queue = any (known) and not exists (select from pgflow.jobs j where j.queue = require_queue.queue) then
        raise exception using errcode = 'PF020', message = format('no queue is named %L', require_queue.queue),
            hint = coalesce('Known: ' || nullif(array_to_string(known[:20], ', ') || case when cardinality(known) > 20 then ', ...' else '' end, '') || '.',
                'No queue is in use: start a worker, or register the app that defines it.');
    end if;
end
$$;

-- Pauses a queue, on one node or on all: no worker takes a job from it or starts one that it holds. What runs goes on.
-- A queue that is paused already keeps the time and the name of its first pause.
create or replace function pgflow.pause_queue(queue text, node text default null, by text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform pgflow.require_queue(pause_queue.queue);
    if pause_queue.node is null then
        insert into pgflow.queues as q (name, paused_at, paused_by)
        values (pause_queue.queue, pgflow.now(), coalesce(pause_queue.by, session_user))
        on conflict (name) do update set paused_at = excluded.paused_at, paused_by = excluded.paused_by where q.paused_at is null;
    else
        insert into pgflow.node_queues as q (node, queue, paused_at, paused_by)
        values (pause_queue.node, pause_queue.queue, pgflow.now(), coalesce(pause_queue.by, session_user))
        on conflict (node, queue) do update set paused_at = excluded.paused_at, paused_by = excluded.paused_by where q.paused_at is null;
    end if;
    perform pgflow.audit('pause queue', jsonb_strip_nulls(jsonb_build_object('queue', pause_queue.queue, 'node', pause_queue.node)), pause_queue.by);
    perform pg_notify(pgflow.channel(), '*');
end
$$;

-- Pauses a queue, as `pause_queue` does, and returns how many of its jobs still run: call it again, each time in a transaction of its own, until it
-- returns 0. What is queued stays queued until `resume_queue`.
create or replace function pgflow.drain_queue(queue text, node text default null, by text default null) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform pgflow.require_queue(drain_queue.queue);
    if not exists (
        select from pgflow.queues q where drain_queue.node is null and q.name = drain_queue.queue and q.paused_at is not null
        union all
        select from pgflow.node_queues n where n.node = drain_queue.node and n.queue = drain_queue.queue and n.paused_at is not null)
    then
        perform pgflow.pause_queue(drain_queue.queue, drain_queue.node, drain_queue.by);
        perform pgflow.audit('drain queue', jsonb_strip_nulls(jsonb_build_object('queue', drain_queue.queue, 'node', drain_queue.node)), drain_queue.by);
    end if;
    return (
        select count(*)
        from pgflow.jobs j
        where j.state = 'running' and j.queue || '' = drain_queue.queue  -- by the index on running jobs
            and (drain_queue.node is null or exists (select from pgflow.workers w where w.id = any (array[j.worker]) and w.node = drain_queue.node))
    );
end
$$;

-- Ends the pause of a queue: that of all nodes, or of one. Returns whether it was paused.
create or replace function pgflow.resume_queue(queue text, node text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    was_paused boolean;
begin
    perform pgflow.require_queue(resume_queue.queue);
    if resume_queue.node is null then
        update pgflow.queues q set paused_at = null, paused_by = null where q.name = resume_queue.queue and q.paused_at is not null;
    else
        update pgflow.node_queues q set paused_at = null, paused_by = null
        where q.node = resume_queue.node and q.queue = resume_queue.queue and q.paused_at is not null;
    end if;
    was_paused := found;
    delete from pgflow.node_queues q
    where q.node = resume_queue.node and q.queue = resume_queue.queue and q.paused_at is null and q.concurrency is null;
    if was_paused then
        perform pgflow.audit('resume queue', jsonb_strip_nulls(jsonb_build_object('queue', resume_queue.queue, 'node', resume_queue.node)));
    end if;
    perform pg_notify(pgflow.channel(), '*');
    return was_paused;
end
$$;

-- Sets how many jobs of a queue each worker runs at once, on one node or on all; null: as many as the code declares, or as it was started with.
create or replace function pgflow.scale_queue(queue text, worker_concurrency integer, node text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if scale_queue.worker_concurrency not between 1 and 10000 then
        raise exception using errcode = 'PF008',
            message = format('queue %s: worker_concurrency must be between 1 and 10000, got %s', scale_queue.queue, scale_queue.worker_concurrency),
            hint = 'To run nothing, pause the queue.';
    end if;
    perform pgflow.require_queue(scale_queue.queue);
    if scale_queue.node is null then
        insert into pgflow.queues as q (name, worker_concurrency, overridden)
        values (scale_queue.queue, scale_queue.worker_concurrency, case when scale_queue.worker_concurrency is null then '{}' else '{worker_concurrency}'::text[] end)
        on conflict (name) do update
        set worker_concurrency = coalesce(excluded.worker_concurrency, (q.declared ->> 'worker_concurrency')::integer),
            overridden = array_remove(q.overridden, 'worker_concurrency') || excluded.overridden;
    else
        insert into pgflow.node_queues (node, queue, concurrency) values (scale_queue.node, scale_queue.queue, scale_queue.worker_concurrency)
        on conflict (node, queue) do update set concurrency = excluded.concurrency;
        delete from pgflow.node_queues q
        where q.node = scale_queue.node and q.queue = scale_queue.queue and q.paused_at is null and q.concurrency is null;
    end if;
    perform pgflow.audit('scale queue', jsonb_build_object(
        'queue', scale_queue.queue, 'worker_concurrency', scale_queue.worker_concurrency)
        || case when scale_queue.node is null then '{}' else jsonb_build_object('node', scale_queue.node) end);
    perform pg_notify(pgflow.channel(), '*');
end
$$;

-- Not granted to PUBLIC.
revoke all on function pgflow.known_queues() from public;
revoke all on function pgflow.require_queue(text) from public;
revoke all on function pgflow.pause_queue(text, text, text) from public;
revoke all on function pgflow.drain_queue(text, text, text) from public;
revoke all on function pgflow.resume_queue(text, text) from public;
revoke all on function pgflow.scale_queue(text, integer, text) from public;
