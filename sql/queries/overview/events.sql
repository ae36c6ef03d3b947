-- Lists what happened within the last `seconds`: starts and ends of instances, ends of tasks, and what operators did; of each the newest `limit`. => at, subject ("workflow", "task" or "audit"), name, event, id (business id, or who), number (run, job or audit id), detail
-- Starts are those of the newest runs, because no index has their times.
with target as (
    select distinct 'workflow' as subject, d.workflow as name from pgflow.definitions d
    union all select 'task', t.name from pgflow.tasks t
),
happened as (
    select e.at, t.subject, t.name, s.status as event, e.id, e.number, e.error
    from target t
    cross join (values ('completed'), ('failed'), ('cancelled')) s (status)
    cross join lateral (
        (
            select i.finished_at as at, i.id, i.run as number, i.error
            from pgflow.instances i
            where t.subject = 'workflow' and i.workflow = t.name and i.status = s.status and i.finished_at is not null
                and i.finished_at > pgflow.now() - make_interval(secs => %(seconds)s::double precision)
            order by i.finished_at desc limit %(limit)s::bigint
        )
        union all
        (
            select r.finished_at, null, r.id, r.error
            from pgflow.task_results r
            where t.subject = 'task' and r.task = t.name and r.status = s.status
                and r.finished_at > pgflow.now() - make_interval(secs => %(seconds)s::double precision)
            order by r.finished_at desc limit %(limit)s::bigint
        )
    ) e
    where %(name)s::text is null or t.name = %(name)s::text
    union all
    select n.created_at, 'workflow', n.workflow, 'started', n.id, n.run, null
    from (select i.* from pgflow.instances i order by i.run desc limit %(limit)s::bigint) n
    where n.created_at > pgflow.now() - make_interval(secs => %(seconds)s::double precision)
        and (%(name)s::text is null or n.workflow = %(name)s::text)
    union all
    select a.at, 'audit', a.action, 'done', a.who, a.id, jsonb_build_object('type', 'Error', 'reason', a.details ->> 'reason')
    from (
        select a.* from pgflow.audit a
        where a.at > pgflow.now() - make_interval(secs => %(seconds)s::double precision) order by a.at desc limit %(limit)s::bigint
    ) a
    where %(name)s::text is null
)
select h.at, h.subject, h.name, h.event, h.id, h.number, case when h.error ->> 'reason' is not null then pgflow.shown_error(h.error) end as detail
from happened h
where isfinite(h.at)
order by h.at desc, h.number desc
limit %(limit)s::bigint
