-- Where the active instances of one version of a workflow are, among the newest `limit` of each status. => step, instances
with active as materialized (
    select a.run
    from unnest(array['pending', 'running', 'waiting']) as s (status)
    cross join lateral (
        select i.run, i.workflow, i.version from pgflow.instances i
        where i.status = s.status and i.status <> 'completed' order by i.run desc limit %(limit)s::bigint
    ) a
    where a.workflow = %(workflow)s::text and a.version = %(version)s::integer
)
select j.step, count(distinct j.run) as instances
from active a
join pgflow.jobs j on j.run = any (array[a.run])
where j.step is not null
group by j.step
