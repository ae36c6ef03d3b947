-- One instance with its history and what each of its tokens waits for. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, history, tokens
select
    i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text, i.created_at, i.finished_at,
    (
        select json_agg(json_build_object(
            'step', r.step, 'event', r.event, 'at', r.finished_at, 'seconds', extract(epoch from r.finished_at - r.started_at),
            'attempt', r.attempt, 'output', r.output, 'metadata', r.metadata, 'errors', r.errors, 'worker', r.worker) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) as history,
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as tokens
from pgflow.instances i
where i.run = pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer)
