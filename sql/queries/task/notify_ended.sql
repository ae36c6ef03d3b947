-- Notifies apps that wait of the tasks that have ended: each payload has some ids, separated by commas. => nothing
select pg_notify(pgflow.ended_channel(), p.ids)
from (
    select string_agg(e.id::text, ',') as ids
    from unnest(%(ids)b::bigint[]) with ordinality as e (id, nth)
    group by e.nth / 300  -- a payload has less than 8000 bytes
) p
