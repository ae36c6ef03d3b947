-- Starts instances of one workflow; skips a value whose key is already active. => ord, run, id, created
select s.ord, s.run, s.id, s.created
from pgflow.start_many(
    %(workflow)s::text, %(values)b::text[], %(inputs)b::text[], version => %(version)s::integer, at => %(at)s::timestamptz,
    delay => make_interval(secs => %(delay)s::double precision), tags => %(tags)b::text[], metadata => %(metadata)s::jsonb,
    priority => %(priority)s::smallint, notify => %(notify)s::boolean, keys => %(keys)b::text[],
    expires_in => make_interval(secs => %(expires_in)s::double precision), deadline => make_interval(secs => %(deadline)s::double precision),
    key => %(key)s::text, call => %(call)s::text
) s
order by s.ord
