-- Lists the queues in use, or one of them (`queue`). => name, paused_at, paused_by, worker_concurrency, is_limited, concurrency, key_concurrency, rate, burst, key_rate, key_burst, workers, ready (at most 1001), running, nodes (what differs by node, as JSON)
select
    k.name, q.paused_at, q.paused_by, q.worker_concurrency, coalesce(q.is_limited, false), q.concurrency, q.key_concurrency, q.rate, q.burst,
    q.key_rate, q.key_burst,
    (select count(*) from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease) and k.name = any (w.queues)) as workers,
    least(1001, (
        select count(*) from (
            select from pgflow.jobs j
            where j.state = 'ready' and j.key is null and j.queue = k.name order by j.priority, j.run_at, j.id limit 1001
        ) r
    ) + (
        select count(*) from (
            select from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = k.name order by j.key limit 1001
        ) r
    )) as ready,
    coalesce(r.jobs, 0) as running,
    (
        select json_agg(json_build_object('node', n.node, 'paused_at', n.paused_at, 'paused_by', n.paused_by, 'concurrency', n.concurrency) order by n.node)::text
        from pgflow.node_queues n where n.queue = k.name
    ) as nodes
from pgflow.known_queues() as k (name)
left join pgflow.queues q on q.name = k.name
left join (
    select j.queue || '' as queue, count(*) as jobs from pgflow.jobs j where j.state = 'running' group by 1
) r on r.queue = k.name
where %(queue)s::text is null or k.name = %(queue)s::text
order by k.name
