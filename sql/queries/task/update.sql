-- Moves a task that does not run to another queue, priority or time; null changes nothing. => no result
select pgflow.update_task(
    %(id)s::bigint, %(queue)s::text, %(priority)s::smallint, %(at)s::timestamptz, make_interval(secs => %(delay)s::double precision),
    %(task)s::text, notify => %(notify)s::boolean
)
