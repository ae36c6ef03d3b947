-- Returns the ids of tasks, live and ended, that match a filter, in order: `oldest` first, after id `after` and before id `before`. `filter` is a
-- document as for `matching_runs`, with these keys: state, task, id, queue, worker, tag, error, attempt, priority, older_than, younger_than,
-- args, metadata, and in `not` those of them that are lists, attempt and priority.
-- Always planned for the values given, like `matching_runs`. Each of the two tables contributes at most `limit` rows, by its primary key.
create or replace function pgflow.matching_tasks(
    filter jsonb, after bigint default null, before bigint default null, oldest boolean default true, "limit" bigint default null
) returns setof bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    f record;
    n record;
    bad text;
    ids bigint[];
    not_ids bigint[];
    first_tag text[];
    only_task text;
    is_live boolean;
    is_ended boolean;
begin
    select k into bad from jsonb_object_keys(filter) k
    where k <> all ('{state,task,id,queue,worker,tag,error,attempt,priority,older_than,younger_than,args,metadata,not}')
    union all
    select 'not.' || k from jsonb_object_keys(coalesce(filter -> 'not', '{}')) k
    where k <> all ('{state,task,id,queue,worker,tag,error,attempt,priority}')
    limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('a filter of tasks has no key %L', bad),
            hint = 'Keys: state, task, id, queue, worker, tag, error, attempt, priority, older_than, younger_than, args, metadata, not.';
    end if;
    select * into f from jsonb_to_record(filter) as r (
        state text[], task text[], id text[], queue text[], worker bigint[], tag jsonb, error jsonb, attempt jsonb, priority jsonb,
        older_than double precision, younger_than double precision, args jsonpath, metadata jsonpath);
    select * into n from jsonb_to_record(coalesce(filter -> 'not', '{}')) as r (
        state text[], task text[], id text[], queue text[], worker bigint[], tag text[], error text[], attempt bigint[], priority bigint[]);
    select s into bad from unnest(f.state || n.state) s where s <> all ('{pending,running,waiting,completed,failed,cancelled}') limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('a filter of tasks has no state %L', bad),
            hint = 'States: pending, running, waiting, completed, failed, cancelled.';
    end if;
    if f.id is not null then
        ids := array(select v::bigint from unnest(f.id) v where v ~ '^[0-9]{1,18}$');
    end if;
    not_ids := array(select v::bigint from unnest(n.id) v where v ~ '^[0-9]{1,18}$');
    if f.tag is not null then
        first_tag := array(select jsonb_array_elements_text(f.tag -> 0));
    end if;
    if cardinality(f.task) = 1 then
        only_task := f.task[1];
    end if;
    is_live := f.state is null or f.state && '{pending,running,waiting}';
    is_ended := f.state is null or f.state && '{completed,failed,cancelled}';

    return query
    with live as (
        select j.id
        from pgflow.jobs j
        cross join lateral (
            select case when j.state = 'running' then 'running' when j.attempt > 0 then 'waiting' else 'pending' end as status
        ) s
        where j.kind = 'task' and is_live
            and (f.state is null or s.status = any (f.state))
            and (f.task is null or j.step = any (f.task))
            and (ids is null or j.id = any (ids))
            and (f.queue is null or j.queue = any (f.queue))
            and (f.worker is null or j.worker = any (f.worker))
            and (f.attempt is null or pgflow.in_range(j.attempt, f.attempt))
            and (f.priority is null or pgflow.in_range(j.priority, f.priority))
            and (matching_tasks.after is null or j.id > matching_tasks.after)
            and (matching_tasks.before is null or j.id < matching_tasks.before)
            and (f.older_than is null or j.enqueued_at < pgflow.now() - make_interval(secs => f.older_than))
            and (f.younger_than is null or j.enqueued_at > pgflow.now() - make_interval(secs => f.younger_than))
            and (f.tag is null or not exists (
                select from jsonb_array_elements(f.tag) g
                where not coalesce(j.tags, '{}') && array(select jsonb_array_elements_text(g))))
            and (f.args is null or coalesce(j.args, '{}') @@ f.args)
            and (f.metadata is null or coalesce(j.metadata, '{}') @@ f.metadata)
            and (f.error is null or not exists (
                select from jsonb_array_elements(f.error) g
                where not exists (select from jsonb_array_elements_text(g) v where pgflow.contains_error(j.errors -> -1, v))))
            and (n.state is null or s.status <> all (n.state))
            and (n.task is null or j.step <> all (n.task))
            and j.id <> all (not_ids)
            and (n.queue is null or j.queue <> all (n.queue))
            and (n.worker is null or coalesce(j.worker <> all (n.worker), true))
            and (n.attempt is null or j.attempt <> all (n.attempt))
            and (n.priority is null or j.priority <> all (n.priority))
            and (n.tag is null or not coalesce(j.tags, '{}') && n.tag)
            and (n.error is null or not exists (select from unnest(n.error) v where pgflow.contains_error(j.errors -> -1, v)))
        order by case when matching_tasks.oldest then j.id end, j.id desc
        limit matching_tasks."limit"
    ),
    ended as (
        select r.id
        from pgflow.task_results r
        where is_ended
            and (f.state is null or r.status = any (f.state))
            and (only_task is null or r.task = only_task)
            and (f.task is null or only_task is not null or r.task = any (f.task))
            and (ids is null or r.id = any (ids))
            and (f.queue is null or r.queue = any (f.queue))
            and (f.worker is null or r.worker = any (f.worker))
            and (f.attempt is null or pgflow.in_range(r.attempt, f.attempt))
            and (f.priority is null or pgflow.in_range(r.priority, f.priority))
            and (matching_tasks.after is null or r.id > matching_tasks.after)
            and (matching_tasks.before is null or r.id < matching_tasks.before)
            and (f.older_than is null or r.enqueued_at < pgflow.now() - make_interval(secs => f.older_than))
            and (f.younger_than is null or r.enqueued_at > pgflow.now() - make_interval(secs => f.younger_than))
            and (first_tag is null or r.tags && first_tag)
            and (f.tag is null or not exists (
                select from jsonb_array_elements(f.tag) g
                where not coalesce(r.tags, '{}') && array(select jsonb_array_elements_text(g))))
            and (f.args is null or coalesce(r.args, '{}') @@ f.args)
            and (f.metadata is null or coalesce(r.metadata, '{}') @@ f.metadata)
            and (f.error is null or not exists (
                select from jsonb_array_elements(f.error) g
                where not exists (select from jsonb_array_elements_text(g) v where pgflow.contains_error(r.error, v))))
            and (n.state is null or r.status <> all (n.state))
            and (n.task is null or r.task <> all (n.task))
            and r.id <> all (not_ids)
            and (n.queue is null or r.queue <> all (n.queue))
            and (n.worker is null or coalesce(r.worker <> all (n.worker), true))
            and (n.attempt is null or r.attempt <> all (n.attempt))
            and (n.priority is null or r.priority <> all (n.priority))
            and (n.tag is null or not coalesce(r.tags, '{}') && n.tag)
            and (n.error is null or not exists (select from unnest(n.error) v where pgflow.contains_error(r.error, v)))
        order by case when matching_tasks.oldest then r.id end, r.id desc
        limit matching_tasks."limit"
    )
    select m.id from (select l.id from live l union all select e.id from ended e) m
    order by case when matching_tasks.oldest then m.id end, m.id desc
    limit matching_tasks."limit";
end
$$;

-- Not granted to PUBLIC: it reads tables with the rights of its caller.
revoke all on function pgflow.matching_tasks(jsonb, bigint, bigint, boolean, bigint) from public;
