-- Lists the queues in use, or one of them (`queue`). => name, paused_at, paused_by, worker_concurrency, is_limited, concurrency, key_concurrency, rate, burst, key_rate, key_burst, workers, ready (at most 1001), running, nodes (what differs by node, as JSON), oldest_ready_at, declared (the settings that the code has set)
select
    q.name, q.paused_at, q.paused_by, q.worker_concurrency, q.is_limited, q.concurrency, q.key_concurrency, q.rate, q.burst, q.key_rate, q.key_burst,
    q.workers, q.ready, q.running, q.nodes::text as nodes,
    case when isfinite(q.oldest_ready_at) then q.oldest_ready_at end as oldest_ready_at,
    array(
        select d from pgflow.queues s cross join jsonb_object_keys(s.declared) d
        where s.name = q.name and d <> all (s.overridden) and d not in ('burst', 'key_burst') order by d
    ) as declared
from pgflow.queue_overview q
where %(queue)s::text is null or q.name = %(queue)s::text
order by q.name
