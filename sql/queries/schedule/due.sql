-- Reads the schedules of these targets that are due. => now, due (a JSON array of schedules), next_due (seconds until the next one is due, null: none)
with due as materialized (
    select d.*
    from unnest(%(targets)b::text[]) t (name)
    cross join lateral (
        select s.* from pgflow.schedules s
        where s.target = t.name and s.next_at <= pgflow.now()
            and (s.declared_by is null or s.name = any (%(declared)b::text[])) and s.name <> all (%(passed_over)b::text[])
        order by s.next_at limit %(limit)s
    ) d
    order by d.next_at limit %(limit)s
)
select
    pgflow.now(),
    coalesce((
        select jsonb_agg(jsonb_build_object(
            'name', d.name, 'target', d.target, 'kind', d.kind, 'cron', d.cron, 'every', d.every, 'tz', d.tz, 'input', d.input, 'value', d.value,
            'overlap', d.overlap, 'catch_up', d.catch_up, 'jitter', d.jitter,
            'revision', d.revision, 'handled_at', d.handled_at, 'next_at', d.next_at, 'queued_until', d.queued_until, 'started_at', r.created_at, 'ended_at', r.finished_at))
        from due d
        left join lateral (
            select i.created_at, i.finished_at from pgflow.instances i where d.kind = 'workflow' and i.run = d.last_run
            union all
            select j.enqueued_at, null from pgflow.jobs j where d.kind = 'task' and j.id = d.last_run and j.kind = 'task'
            union all
            select t.enqueued_at, t.finished_at from pgflow.task_results t where d.kind = 'task' and t.id = d.last_run
            limit 1  -- a lookup for each, not a join
        ) r on true
    ), '[]')::text,
    (
        select extract(epoch from min(n.next_at) - pgflow.now())::double precision
        from unnest(%(targets)b::text[]) t (name)
        cross join lateral (
            select s.next_at from pgflow.schedules s
            where s.target = t.name and s.next_at > pgflow.now() and (s.declared_by is null or s.name = any (%(declared)b::text[]))
            order by s.next_at limit 1
        ) n
    )
