-- Reads how a worker serves its queues now. => name, concurrency (null: as it was started), is_paused, is_limited (whether claims have to go through claim_limited)
-- A queue with keyed jobs and without limits is claimed in turns of the keys, too: no other statement takes them.
select
    u.name,
    coalesce(n.concurrency, q.worker_concurrency),
    q.paused_at is not null or n.paused_at is not null as is_paused,
    coalesce(q.is_limited, false) or exists (
        select from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = u.name limit 1
    ) as is_limited
from unnest(%(queues)b::text[]) as u (name)
left join lateral (
    select x.paused_at, x.worker_concurrency, x.is_limited from pgflow.queues x where x.name = u.name limit 1
) q on true
left join lateral (
    select x.paused_at, x.concurrency from pgflow.node_queues x where x.queue = u.name and x.node = %(node)s::text limit 1
) n on true
