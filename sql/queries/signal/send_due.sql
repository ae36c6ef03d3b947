-- Sends the scheduled signals that are due. => queues (with a wait that ended), signals, next_due (seconds from now, null: none)
with sent as materialized (
    select d.queue from pgflow.send_due(%(limit)s) d (queue)
)
select
    coalesce((select array_agg(distinct s.queue) filter (where s.queue is not null) from sent s), '{}') as queues,
    (select count(*) from sent) as signals,
    case when (select count(*) from sent) >= %(limit)s then 0.0 else extract(epoch from (  -- there may be more
        select min(s.due_at) from pgflow.scheduled_signals s where s.due_at > pgflow.now()
    ) - pgflow.now()) end::double precision as next_due
