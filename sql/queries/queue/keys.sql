-- The busiest partition keys of a queue, among those with a running job and the first `limit` with a ready one. => key, running, ready (at most 1001)
with recursive waiting (key, n) as (  -- one look into an index for each key
    (select j.key, 1 from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = %(queue)s::text order by j.key limit 1)
    union all
    select (
        select j.key from pgflow.jobs j
        where j.state = 'ready' and j.key is not null and j.queue = %(queue)s::text and j.key > w.key order by j.key limit 1
    ), w.n + 1
    from waiting w where w.key is not null and w.n < %(limit)s::integer
), running as (
    select j.key, count(*) as jobs from pgflow.jobs j where j.state = 'running' and j.queue = %(queue)s::text and j.key is not null group by j.key
)
select k.key, coalesce(r.jobs, 0) as running, (
    select count(*) from (
        select from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = %(queue)s::text and j.key = k.key limit 1001
    ) c
) as ready
from (select w.key from waiting w where w.key is not null union select r.key from running r) k
left join running r on r.key = k.key
order by running desc, ready desc, k.key
limit %(limit)s::integer
