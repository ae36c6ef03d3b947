-- Makes due jobs ready: retries after their back-off, delayed starts, expired timers. => queues, jobs, next_due (seconds from now, null: none will be)
with due as materialized (
    select j.id
    from pgflow.jobs j
    where j.state in ('scheduled', 'parked') and j.run_at <= pgflow.now()
    order by j.run_at, j.id
    limit %(limit)s
    for no key update of j skip locked
),
staged as (
    update pgflow.jobs j set state = 'ready'  -- keeps run_at: the job that was due first is claimed first
    where j.id = any (array(select d.id from due d))
    returning j.queue
)
select
    coalesce((select array_agg(distinct s.queue) from staged s), '{}') as queues,
    (select count(*) from staged) as jobs,
    case when (select count(*) from staged) >= %(limit)s then 0.0 else extract(epoch from (  -- there may be more
        select nullif(min(j.run_at), 'infinity') from pgflow.jobs j where j.state in ('scheduled', 'parked') and j.run_at > pgflow.now()
    ) - pgflow.now()) end::double precision as next_due
