-- Claims jobs of queues with limits or partition keys, up to `rooms` of each; job/claim, sent after it in the same transaction, returns them. => queue, answer, seconds
-- functions/claim_limited.sql explains the answers. A statement before the claim, so that the claim's snapshot is later: it must show what the
-- claimed jobs build on.
select q.name, a.answer, a.seconds
from unnest(%(queues)b::text[], %(rooms)b::integer[]) with ordinality as q (name, room, n)
cross join lateral pgflow.claim_limited(
    q.name, q.room, %(worker)s::bigint,
    array(select h.key from unnest(%(hint_queues)b::text[], %(hint_keys)b::text[]) as h (queue, key) where h.queue = q.name),
    q.n = 1
) a
order by q.n
