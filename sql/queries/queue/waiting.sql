-- What waits for a time in each queue that has such jobs. => name, scheduled, retrying (both among the next `limit` jobs that wait for a time)
select d.queue as name, count(*) filter (where d.attempt = 0) as scheduled, count(*) filter (where d.attempt > 0) as retrying
from (
    select j.queue || '' as queue, j.state, j.attempt from pgflow.jobs j
    where j.state in ('scheduled', 'parked') order by j.run_at, j.id limit %(limit)s::bigint
) d
where d.state = 'scheduled'
group by d.queue
