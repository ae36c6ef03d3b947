-- Groups the newest failed instances and tasks by where and why they failed, the largest group first. => name (of the workflow or task), step, type, reason (of the newest), many, newest_at, is_task
-- At most `sample` rows of each are read, by the partial index on what has failed.
with failed as (
    (
        select i.workflow as name, i.error ->> 'step' as step, i.error ->> 'type' as type, left(i.error ->> 'reason', 300) as reason, i.finished_at, false as is_task
        from pgflow.instances i where i.status = 'failed' and i.status <> 'completed' order by i.run desc limit %(sample)s
    )
    union all
    (
        select r.task, null, r.error ->> 'type', left(r.error ->> 'reason', 300), r.finished_at, true
        from pgflow.task_results r where r.status = 'failed' and r.status <> 'completed' order by r.id desc limit %(sample)s
    )
)
select f.name, f.step, f.type, (array_agg(f.reason order by f.finished_at desc))[1] as reason, count(*) as many, to_json(max(f.finished_at)) #>> '{}' as newest_at, f.is_task
from failed f
group by f.name, f.step, f.type, f.is_task
order by many desc, newest_at desc
limit %(limit)s
