-- Says whether a worker has anything to do, and takes nothing: all that an idle one asks. => ready (whether there is a ready token in these queues), next_due (seconds until a token or a scheduled signal is due, 0: one is, null: none)
with due as materialized (  -- the first of each by its index, which the conditions make the only one that is of use
    select least(
        (select j.run_at from pgflow.jobs j where j.state in ('scheduled', 'parked') and j.run_at < 'infinity' order by j.run_at, j.id limit 1),
        (select s.due_at from pgflow.scheduled_signals s where s.due_at < 'infinity' order by s.due_at, s.id limit 1)
    ) as moment
)
select
    exists (
        select from unnest(%(queues)b::text[]) as q (name)
        cross join lateral (  -- the limit keeps it from becoming a join, for which all that is ready may be read
            select from pgflow.jobs j where j.state = 'ready' and j.queue = q.name limit 1
        ) t
    ) as ready,
    -- Of a null `greatest` would make a 0.
    (select greatest(0, extract(epoch from d.moment - pgflow.now()))::double precision from due d where d.moment is not null) as next_due
