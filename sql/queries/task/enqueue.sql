-- Enqueues a task once for each of `args`, unless its unique key is taken. => ord, id, created
select e.ord, e.id, e.created
from pgflow.enqueue_many(
    %(task)s::text, %(args)b::text[], at => %(at)s::timestamptz, delay => make_interval(secs => %(delay)s::double precision),
    queue => %(queue)s::text, priority => %(priority)s::smallint, max_attempts => %(max_attempts)s::smallint, tags => %(tags)b::text[],
    metadata => %(metadata)s::jsonb, notify => %(notify)s::boolean, keys => %(keys)b::text[], uniqueness => %(uniqueness)s::jsonb,
    partition_keys => %(partition_keys)b::text[], expires_in => make_interval(secs => %(expires_in)s::double precision),
    key => %(key)s::text, call => %(call)s::text
) e
order by e.ord
