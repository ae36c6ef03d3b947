-- Counts the jobs of a queue that run, on one node or on all (null). => jobs
select count(*)
from pgflow.jobs j
where j.state = 'running' and j.queue || '' = %(queue)s::text  -- by the index on running jobs
    and (%(node)s::text is null or exists (select from pgflow.workers w where w.id = any (array[j.worker]) and w.node = %(node)s::text))
