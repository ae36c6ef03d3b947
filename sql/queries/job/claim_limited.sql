-- Claims jobs of queues with limits or partition keys, up to `rooms` of each; job/claim, sent after it in the same transaction, returns them. => queue, answer, seconds
-- functions/claim_limited.sql explains the answers. A statement before the claim, so that the claim's snapshot is later: it must show what the
-- claimed jobs build on. In the select list, the function is called once per queue.
select c.name, (c.given).answer, (c.given).seconds
from (
    select q.name, q.n, pgflow.claim_limited(
        q.name, q.room, %(worker)s::bigint,
        array(select h.key from unnest(%(hint_queues)b::text[], %(hint_keys)b::text[]) as h (queue, key) where h.queue = q.name),
        q.n = 1
    ) as given
    from unnest(%(queues)b::text[], %(rooms)b::integer[]) with ordinality as q (name, room, n)
    order by q.n
    offset 0
) c
order by c.n
