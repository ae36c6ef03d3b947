-- Deletes instances that have ended with all their rows: results, signals, scheduled signals, business ids that no other instance has. Returns
-- how many. Skips those that another session has locked (a retry, a put or a delete), and those that have changed: `revisions`, if given, are
-- those of `runs`. An active instance is never deleted.
create or replace function pgflow.prune_runs(runs bigint[], revisions integer[] default null) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with given as materialized (
        select g.run, g.revision from unnest(prune_runs.runs, prune_runs.revisions) as g (run, revision)
    ),
    old as materialized (
        select i.run
        from given g join pgflow.instances i on i.run = any (array[g.run])  -- an index lookup per row: see sql/README.md, "Plans"
        where i.finished_at is not null and (prune_runs.revisions is null or i.revision = g.revision)
        order by g.run
        for update of i skip locked
    ),
    stale as (
        insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)
        select p.workflow, p.instance, p.kind, p.name, p.reference from pgflow.payload_references(array(select o.run from old o)) p
    ),
    results as (
        delete from pgflow.step_results r where r.run = any (array(select o.run from old o))
    ),
    signals as (
        delete from pgflow.signals s where s.run = any (array(select o.run from old o))
    ),
    scheduled as (
        delete from pgflow.scheduled_signals s where s.run = any (array(select o.run from old o))
    ),
    spare as materialized (  -- ids without any other instance; skips one that a start has locked, or has used since our snapshot (its ctid has changed)
        select b.id
        from pgflow.business_ids b
        where b.id = any (array(select i.id from pgflow.instances i where i.run = any (array(select o.run from old o))))
            and not exists (select from pgflow.instances i where i.id = b.id and i.run <> all (array(select o.run from old o)))
            and (select true from pgflow.business_ids seen where seen.ctid = b.ctid)
        order by b.id
        for update skip locked
    ),
    unused as (
        delete from pgflow.business_ids b where b.id = any (array(select s.id from spare s))
    ),
    gone as (
        delete from pgflow.instances i where i.run = any (array(select o.run from old o)) returning 1
    )
    select count(*) from gone
$$;

-- Returns instances that ended too long ago to be kept, at most `limit`: those of each status after its age, null: never, and of each workflow
-- those that are more than `max_count`, null: any number. With `overrides` the `retain` of a workflow's current version takes precedence:
-- {"completed": seconds, "failed": seconds, "max": count}, where seconds may be null.
-- Reads one range of instances_ended per workflow and status, from its old end; a count reads at most `max_count` entries from the other end.
create or replace function pgflow.expired_runs(
    completed interval, failed interval, cancelled interval, max_count bigint, overrides boolean, "limit" integer
) returns table (run bigint, revision integer)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select e.run, e.revision
    from (
        select distinct on (d.workflow) d.workflow, case when expired_runs.overrides then d.graph -> 'retain' end as retain
        from pgflow.definitions d
        order by d.workflow, d.current_since desc nulls last, d.version desc
    ) w
    cross join lateral (
        select coalesce((w.retain ->> 'max')::bigint, expired_runs.max_count) as most offset 0
    ) m
    left join lateral (  -- the newest one that is too many
        select k.finished_at as at, k.run
        from (values ('completed'), ('failed'), ('cancelled')) each (status)
        cross join lateral (
            select i.finished_at, i.run from pgflow.instances i
            where i.workflow = w.workflow and i.status = each.status and i.finished_at is not null
            order by i.finished_at desc, i.run desc
            limit m.most + 1
        ) k
        where m.most is not null
        order by k.finished_at desc, k.run desc
        offset m.most limit 1
    ) k on true
    cross join lateral (
        values ('completed', 'completed', expired_runs.completed), ('failed', 'failed', expired_runs.failed), ('cancelled', 'failed', expired_runs.cancelled)
    ) s (status, key, age)
    cross join lateral (
        select pgflow.now() - case when w.retain ? s.key then make_interval(secs => (w.retain ->> s.key)::double precision) else s.age end as at offset 0
    ) a
    cross join lateral (  -- the last place in the index that is not kept
        select greatest(a.at, k.at) as at, case when k.at >= coalesce(a.at, k.at) then k.run else 0 end as run offset 0
    ) c
    cross join lateral (
        select i.run, i.revision from pgflow.instances i
        where i.workflow = w.workflow and i.status = s.status and (i.finished_at, i.run) <= (c.at, c.run) and i.finished_at is not null
        order by i.finished_at, i.run
        limit expired_runs."limit"
    ) e
    limit expired_runs."limit"
$$;

-- Deletes instances and tasks that ended too long ago, and returns how many, fewer than `limit` when there are no more: see `expired_runs`.
create or replace function pgflow.prune(
    completed interval default null, failed interval default null, cancelled interval default null, max_count bigint default null,
    overrides boolean default false, "limit" integer default 500
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    runs bigint[];
    revisions integer[];
    deleted bigint;
    tasks bigint := 0;
begin
    if prune."limit" < 1 or prune.max_count < 0 then
        raise exception using errcode = 'PF008', message = format('limit must be at least 1, and max_count at least 0, got %s and %s', prune."limit", prune.max_count);
    end if;
    select array_agg(e.run), array_agg(e.revision) into runs, revisions
    from pgflow.expired_runs(prune.completed, prune.failed, prune.cancelled, prune.max_count, prune.overrides, prune."limit") e;
    deleted := case when runs is null then 0 else pgflow.prune_runs(runs, revisions) end;
    if deleted < prune."limit" then
        tasks := pgflow.delete_tasks(array(
            select o.id from pgflow.task_results o
            where o.id = any (array(
                select e.id from pgflow.expired_tasks(
                    prune.completed, prune.failed, prune.cancelled, prune.max_count, prune.overrides, prune."limit" - deleted::integer) e))
            order by o.id for update skip locked));
    end if;
    if not prune.overrides and deleted + tasks > 0 then  -- an operator's call; those of workers apply what workflows declare
        perform pgflow.audit('prune', jsonb_strip_nulls(jsonb_build_object(
            'deleted', deleted + tasks, 'completed', prune.completed, 'failed', prune.failed, 'cancelled', prune.cancelled, 'max_count', prune.max_count)));
    end if;
    return deleted + tasks;
end
$$;

-- Returns tasks that ended too long ago to be kept, as `expired_runs` does for instances: by the index task_results_ended, task by task.
create or replace function pgflow.expired_tasks(
    completed interval, failed interval, cancelled interval, max_count bigint, overrides boolean, "limit" integer
) returns table (id bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select e.id
    from (
        select t.name, case when expired_tasks.overrides then t.options -> 'retain' end as retain from pgflow.tasks t order by t.name
    ) w
    cross join lateral (
        select coalesce((w.retain ->> 'max')::bigint, expired_tasks.max_count) as most offset 0
    ) m
    left join lateral (  -- the newest one that is too many
        select k.finished_at as at, k.id
        from (values ('completed'), ('failed'), ('cancelled')) each (status)
        cross join lateral (
            select r.finished_at, r.id from pgflow.task_results r
            where r.task = w.name and r.status = each.status
            order by r.finished_at desc, r.id desc
            limit m.most + 1
        ) k
        where m.most is not null
        order by k.finished_at desc, k.id desc
        offset m.most limit 1
    ) k on true
    cross join lateral (
        values ('completed', 'completed', expired_tasks.completed), ('failed', 'failed', expired_tasks.failed), ('cancelled', 'failed', expired_tasks.cancelled)
    ) s (status, key, age)
    cross join lateral (
        select pgflow.now() - case when w.retain ? s.key then make_interval(secs => (w.retain ->> s.key)::double precision) else s.age end as at offset 0
    ) a
    cross join lateral (  -- the last place in the index that is not kept
        select greatest(a.at, k.at) as at, case when k.at >= coalesce(a.at, k.at) then k.id else 0 end as id offset 0
    ) c
    cross join lateral (
        select r.id from pgflow.task_results r
        where r.task = w.name and r.status = s.status and (r.finished_at, r.id) <= (c.at, c.id)
        order by r.finished_at, r.id
        limit expired_tasks."limit"
    ) e
    limit expired_tasks."limit"
$$;

-- Deletes these instances of an archive if they are still as they were read, and returns how many.
create or replace function pgflow.prune_archived(runs bigint[], revisions integer[]) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(prune_archived.runs) = 0 then
        return 0;
    end if;
    return pgflow.prune_runs(prune_archived.runs, prune_archived.revisions);
end
$$;

-- Deletes these tasks of an archive unless they have run again: `ends` is when each ended. Returns how many.
create or replace function pgflow.prune_archived_tasks(ids bigint[], ends text[]) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(prune_archived_tasks.ids) = 0 then
        return 0;
    end if;
    return pgflow.delete_tasks(array(
        select o.id
        from unnest(prune_archived_tasks.ids, prune_archived_tasks.ends) g (id, ended) join pgflow.task_results o on o.id = any (array[g.id])
        where o.finished_at = g.ended::timestamptz
        order by o.id for update of o skip locked));
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.prune_runs(bigint[], integer[]) from public;
revoke all on function pgflow.expired_runs(interval, interval, interval, bigint, boolean, integer) from public;
revoke all on function pgflow.expired_tasks(interval, interval, interval, bigint, boolean, integer) from public;
revoke all on function pgflow.prune(interval, interval, interval, bigint, boolean, integer) from public;
revoke all on function pgflow.prune_archived(bigint[], integer[]) from public;
revoke all on function pgflow.prune_archived_tasks(bigint[], text[]) from public;
