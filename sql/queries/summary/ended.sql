-- Counts what has ended in each of a number of equal spans before now, up to a limit in each, oldest first. => number, completed, failed
-- instances_ended and task_results_ended begin with the name and the status: each count is one index scan of at most `limit` entries.
with names as (
    select distinct d.workflow as name, true as is_workflow from pgflow.definitions d
    union all
    select t.name, false from pgflow.tasks t
), spans as (
    select n as number, pgflow.now() - (%(spans)s::integer - n) * make_interval(secs => %(seconds)s::double precision) as since
    from generate_series(0, %(spans)s::integer - 1) as n
), statuses (status) as (
    values ('completed'), ('failed')
)
select s.number, coalesce(sum(c.many) filter (where t.status = 'completed'), 0)::bigint as completed, coalesce(sum(c.many) filter (where t.status = 'failed'), 0)::bigint as failed
from spans s cross join statuses t cross join names n cross join lateral (
    select case when n.is_workflow then (
        select count(*) from (
            select from pgflow.instances i
            where i.workflow = n.name and i.status = t.status and i.finished_at is not null
                and i.finished_at >= s.since and i.finished_at < s.since + make_interval(secs => %(seconds)s::double precision)
            limit %(limit)s::bigint) l
    ) else (
        select count(*) from (
            select from pgflow.task_results r
            where r.task = n.name and r.status = t.status
                and r.finished_at >= s.since and r.finished_at < s.since + make_interval(secs => %(seconds)s::double precision)
            limit %(limit)s::bigint) l
    ) end as many
) c
group by s.number
order by s.number
