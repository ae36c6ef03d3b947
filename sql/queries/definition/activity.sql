-- Counts the instances of each workflow: active ones among the newest `limit` of each status, and those that ended within `seconds`, up to `limit` each. => workflow, pending, running, waiting, completed, failed, is_cut (there are more active ones than were looked at)
with active as materialized (
    select a.status, a.workflow
    from unnest(array['pending', 'running', 'waiting']) as s (status)
    cross join lateral (
        select i.status, i.workflow from pgflow.instances i
        where i.status = s.status and i.status <> 'completed' order by i.run desc limit %(limit)s::bigint
    ) a
), counted as (
    select
        a.workflow, count(*) filter (where a.status = 'pending') as pending, count(*) filter (where a.status = 'running') as running,
        count(*) filter (where a.status = 'waiting') as waiting
    from active a group by a.workflow
), cut as (
    select exists (select from active a group by a.status having count(*) >= %(limit)s::bigint) as is_cut
)
select
    n.workflow, coalesce(c.pending, 0) as pending, coalesce(c.running, 0) as running, coalesce(c.waiting, 0) as waiting,
    (
        select count(*) from (
            select from pgflow.instances i
            where i.workflow = n.workflow and i.status = 'completed' and i.finished_at is not null
                and i.finished_at >= pgflow.now() - make_interval(secs => %(seconds)s::double precision)
            limit %(limit)s::bigint
        ) e
    ) as completed,
    (
        select count(*) from (
            select from pgflow.instances i
            where i.workflow = n.workflow and i.status = 'failed' and i.finished_at is not null
                and i.finished_at >= pgflow.now() - make_interval(secs => %(seconds)s::double precision)
            limit %(limit)s::bigint
        ) e
    ) as failed,
    cut.is_cut
from (select distinct d.workflow from pgflow.definitions d) n
cross join cut
left join counted c on c.workflow = n.workflow
order by n.workflow
