-- A page of live jobs, oldest first; `after` is the last id of the previous page. => id, run, instance_id, workflow, version, step, kind, state, queue, priority, attempt, max_attempts, run_at, worker, tags, meta, errors, progress
select
    d.id, d.run, d.instance_id, d.workflow, d.version, d.step, d.kind, d.state, d.queue, d.priority, d.attempt, d.max_attempts, d.run_at, d.worker,
    d.tags, d.meta::text, d.errors::text, d.progress::text
from pgflow.job_details d
where (%(workflow)s::text is null or d.workflow = %(workflow)s::text)
    and (%(version)s::integer is null or d.version = %(version)s::integer)
    and (%(queue)s::text is null or d.queue = %(queue)s::text)
    and (%(state)s::text is null or d.state = %(state)s::text)
    and (%(after)s::bigint is null or d.id > %(after)s::bigint)
    and d.tags @> %(tags)b::text[]
    and (%(meta)s::jsonb is null or d.meta @> %(meta)s::jsonb)
order by d.id
limit %(limit)s
