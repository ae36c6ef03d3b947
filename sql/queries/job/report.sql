-- Writes the progress and the checkpoints that running jobs have reported; null leaves one as it is. => id, of the jobs that are still this worker's
-- Skips rows that another session has locked, such as the transaction of a step that is being settled: they are written later.
with given as materialized (
    select g.*
    from unnest(
        %(ids)b::bigint[], %(attempts)b::integer[], %(steps)b::text[], %(progress)b::text[], %(checkpoints)b::text[]
    ) as g (id, attempt, step, progress, checkpoint)
),
held as materialized (  -- fenced as in settle.sql
    select g.*
    from given g join pgflow.jobs j on j.id = any (array[g.id])
    where nullif(j.state = 'running' and j.worker = %(worker)s::bigint and j.attempt = g.attempt and j.step = g.step, false) is not null
    order by g.id
    for no key update of j skip locked
)
update pgflow.jobs j
set progress = coalesce(h.progress::jsonb, j.progress), checkpoint = coalesce(h.checkpoint::jsonb, j.checkpoint)
from held h
where j.id = any (array[h.id])
returning j.id
