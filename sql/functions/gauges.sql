-- Returns how many jobs of a queue workers could work on now, at most 10,000: what runs, and what is ready or due. A number for an autoscaler: it does
-- not fall when a worker takes a job. A paused queue has only what still runs, and one with a concurrency limit no more than that. A queue
-- that is not in use has 0, because it may have been scaled to nothing.
create or replace function pgflow.backlog(queue text) returns integer
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select least(
        10000,
        (select q.concurrency from pgflow.queues q where q.name = backlog.queue and q.is_limited),
        running.jobs + case when not exists (select from pgflow.queues q where q.name = backlog.queue and q.paused_at is not null) then (
            select count(*) from (
                select from pgflow.jobs j
                where j.state = 'ready' and j.key is null and j.queue = backlog.queue order by j.priority, j.run_at, j.id limit 10000
            ) c
        ) + (
            select count(*) from (
                select from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = backlog.queue order by j.key limit 10000
            ) c
        ) + (
            select count(*) from (
                select j.queue from pgflow.jobs j
                where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now() order by j.run_at, j.id limit 10000
            ) c
            where c.queue = backlog.queue
        ) else 0 end
    )::integer
    from (select count(*) as jobs from pgflow.jobs j where j.state = 'running' and j.queue || '' = backlog.queue) running
$$;

-- Returns how many instances of each workflow, and executions of each task, ended within the last `period`, as far as retention has kept them. A number
-- is exact up to 100,000; above, it is computed from the time in which the last 100,000 ended. `per_second` is that of all three together.
create or replace function pgflow.throughput(period interval default '1 hour')
returns table (kind text, name text, completed bigint, failed bigint, cancelled bigint, per_second double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := pgflow.now();
    length constant double precision := extract(epoch from throughput.period);
begin
    if throughput.period is null or length <= 0 or length > 315360000 then
        raise exception using errcode = 'PF008', message = format('period must be above zero and at most 3650 days, got %s', coalesce(throughput.period::text, 'null')),
            hint = 'For example: pgflow.throughput(''15 minutes'')';
    end if;
    return query
    with ended as (
        select e.kind, e.name, s.status, c.jobs, c.oldest
        from (
            select distinct 'workflow' as kind, d.workflow as name from pgflow.definitions d
            union all select 'task', t.name from pgflow.tasks t
        ) e
        cross join (values ('completed'), ('failed'), ('cancelled')) s (status)
        cross join lateral (
            select count(*) as jobs, min(x.finished_at) as oldest
            from (
                (
                    select i.finished_at from pgflow.instances i
                    where e.kind = 'workflow' and i.workflow = e.name and i.status = s.status and i.finished_at > moment - throughput.period
                        and i.finished_at is not null
                    order by i.finished_at desc limit 100000
                )
                union all
                (
                    select r.finished_at from pgflow.task_results r
                    where e.kind = 'task' and r.task = e.name and r.status = s.status and r.finished_at > moment - throughput.period
                    order by r.finished_at desc limit 100000
                )
            ) x
        ) c
    ),
    counted as (
        select
            e.kind, e.name, e.status,
            case when e.jobs < 100000 then e.jobs
                else round(e.jobs * length / greatest(extract(epoch from moment - e.oldest), 0.001))::bigint end as jobs
        from ended e
    )
    select
        c.kind, c.name,
        sum(c.jobs) filter (where c.status = 'completed')::bigint,
        sum(c.jobs) filter (where c.status = 'failed')::bigint,
        sum(c.jobs) filter (where c.status = 'cancelled')::bigint,
        (sum(c.jobs) / length)::double precision
    from counted c
    group by c.kind, c.name
    order by c.kind, c.name;
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.backlog(text) from public;
revoke all on function pgflow.throughput(interval) from public;
