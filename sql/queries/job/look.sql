-- Says whether a worker has anything to do, and takes nothing: all that an idle one asks. => ready (whether there is a ready token in these queues), next_due (seconds until a token or a scheduled signal is due, 0: one is, null: none)
select
    exists (
        select from unnest(%(queues)b::text[]) as q (name)
        where exists (select from pgflow.jobs j where j.state = 'ready' and j.queue = any (array[q.name]))
    ) as ready,
    greatest(0, extract(epoch from least(
        (select nullif(min(j.run_at), 'infinity') from pgflow.jobs j where j.state in ('scheduled', 'parked')),
        (select min(s.due_at) from pgflow.scheduled_signals s)
    ) - pgflow.now()))::double precision as next_due
