-- Says whether a worker has anything to do, and takes nothing: all that an idle one asks. => ready (whether there is a ready token in these queues), next_due (seconds until a token or a scheduled signal is due, 0: one is, null: none)
select
    exists (
        select from unnest(%(queues)b::text[]) as q (name)
        where exists (select from pgflow.jobs j where j.state = 'ready' and j.queue = any (array[q.name]))
    ) as ready,
    (
        select greatest(0, extract(epoch from d.moment - pgflow.now()))::double precision  -- of a null it would make a 0
        from (
            select least(
                (select nullif(min(j.run_at), 'infinity') from pgflow.jobs j where j.state in ('scheduled', 'parked')),
                (select min(s.due_at) from pgflow.scheduled_signals s)
            )
        ) d (moment)
        where d.moment is not null
    ) as next_due
