-- Lists the signals of an instance, scheduled ones first, then the newest first, up to a limit. => id, name, step, payload (its beginning), payload_size, sent_at, consumed_at, due_at
select
    s.id, s.name, s.step, left(s.payload::text, %(size)s::integer) as payload, octet_length(s.payload::text) as payload_size,
    to_json(s.sent_at) #>> '{}' as sent_at, to_json(s.consumed_at) #>> '{}' as consumed_at, to_json(s.due_at) #>> '{}' as due_at
from (
    (
        select l.id, l.name, l.step, l.payload, null::timestamptz as sent_at, null::timestamptz as consumed_at, l.due_at
        from pgflow.scheduled_signals l where l.run = %(run)s::bigint order by l.due_at limit %(limit)s
    )
    union all
    (
        select g.id, g.name, g.step, g.payload, g.sent_at, g.consumed_at, null
        from pgflow.signals g where g.run = %(run)s::bigint order by g.id desc limit %(limit)s
    )
) s
order by s.due_at nulls last, s.id desc
