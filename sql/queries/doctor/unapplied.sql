-- Finds results of the oldest active instances that were recorded more than a minute ago and are not applied, except in paused queues. => results, first (run, null: none), age (of the oldest, seconds)
with page as materialized (
    select l.run
    from unnest(array['pending', 'running', 'waiting']) s (status)
    cross join lateral (  -- one index range per status
        select i.run from pgflow.instances i where i.status = s.status and i.status <> 'completed' order by i.run limit %(limit)s
    ) l
)
select count(*), min(r.run), extract(epoch from pgflow.now() - min(r.finished_at))::double precision
from page p
cross join lateral (  -- offset 0: one index probe per run
    select r.run, r.finished_at
    from pgflow.step_results r
    where r.run = p.run and not r.applied and r.finished_at < pgflow.now() - interval '1 minute' and isfinite(r.finished_at)
    offset 0
) r
where not exists (
    select from pgflow.jobs j join pgflow.queues q on q.name = j.queue
    where j.run = p.run and j.kind = 'advance' and q.paused_at is not null
    offset 0
)
