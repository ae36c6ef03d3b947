-- Adds a schedule at run time. => nothing
select from pgflow.add_schedule(
    %(name)s::text, %(target)s::text, cron => %(cron)s::text, every => make_interval(secs => %(every)s::double precision), tz => %(tz)s::text,
    input => %(input)s::jsonb, value => %(value)s::text, overlap => %(overlap)s::text, catch_up => %(catch_up)s::text,
    jitter => make_interval(secs => %(jitter)s::double precision), replace_existing => %(replace)s::boolean
)
