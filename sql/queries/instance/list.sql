-- Instances, newest first, a page at a time: pass the last run as `before`. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, tokens
select i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text, i.created_at, i.finished_at,
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as tokens
from pgflow.instances i
where (%(workflow)s::text is null or i.workflow = %(workflow)s::text)
    and (%(version)s::integer is null or i.version = %(version)s::integer)
    and (%(statuses)s::text[] is null or i.status = any (%(statuses)s::text[]))
    and (%(before)s::bigint is null or i.run < %(before)s::bigint)
order by i.run desc
limit %(limit)s
