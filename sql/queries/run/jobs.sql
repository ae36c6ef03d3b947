-- Lists the live jobs of an instance, up to a limit, with what decides when each runs. => id, step, kind, state, queue, priority, attempt, max_attempts, run_at, parked_at, worker, node, pid, awaits, errors, progress, key, paused_at, paused_by, is_limited, concurrency, key_concurrency, workers (of its queue)
select
    j.id, j.step, j.kind, j.state, j.queue, j.priority, j.attempt, j.max_attempts,
    to_json(j.run_at) #>> '{}' as run_at, to_json(j.parked_at) #>> '{}' as parked_at, j.worker, w.node, w.pid,
    j.awaits::text, left(j.errors::text, %(errors_size)s::integer) as errors, j.progress::text, j.key,
    to_json(q.paused_at) #>> '{}' as paused_at, q.paused_by, coalesce(q.is_limited, false) as is_limited, q.concurrency, q.key_concurrency,
    coalesce(s.workers, 0) as workers
from pgflow.jobs j
left join pgflow.workers w on w.id = j.worker
left join pgflow.queues q on q.name = j.queue
left join (
    select u.queue, count(*) as workers
    from pgflow.workers a cross join unnest(a.queues) as u (queue)
    where pgflow.is_leased(a.lease_expires_at, a.lease)
    group by 1
) s on s.queue = j.queue
where j.run = %(run)s::bigint
order by j.id
limit %(limit)s
