-- Cheap poll of an idle worker, which claims nothing. => ready (whether a job is ready in these queues), next_due (seconds until a job, a scheduled signal or a schedule that it may fire is due, 0: one is, null: none will be)
with due as materialized (  -- the first of each by its partial index: the conditions leave no other one
    select least(
        (select j.run_at from pgflow.jobs j where j.state in ('scheduled', 'parked') and j.run_at < 'infinity' order by j.run_at, j.id limit 1),
        (select s.due_at from pgflow.scheduled_signals s where s.due_at < 'infinity' order by s.due_at, s.id limit 1),
        (
            select min(n.next_at)
            from unnest(%(targets)b::text[]) t (name)
            cross join lateral (
                select s.next_at from pgflow.schedules s
                where s.target = t.name and s.next_at is not null and (s.declared_by is null or s.name = any (%(declared)b::text[]))
                order by s.next_at limit 1
            ) n
        )
    ) as moment
)
select
    exists (
        select from unnest(%(queues)b::text[]) as q (name)
        cross join lateral (  -- the limit keeps this from becoming a join, which may read all ready jobs
            select from (select from pgflow.jobs j where j.state = 'ready' and j.key is null and j.queue = q.name limit 1) plain
            union all
            select from (select from pgflow.jobs j where j.state = 'ready' and j.key is not null and j.queue = q.name limit 1) keyed
            limit 1
        ) t
    ) as ready,
    -- `greatest` would turn a null into 0.
    (select greatest(0, extract(epoch from d.moment - pgflow.now()))::double precision from due d where d.moment is not null) as next_due
