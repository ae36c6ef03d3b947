-- One instance with its history and what each of its tokens waits for. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, tokens, history
select
    i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at,  -- text: an infinite time is no error here
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits::text, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors::text) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as tokens,
    (
        select json_agg(json_build_object(
            'step', r.step, 'event', r.event, 'targets', r.targets, 'started_at', r.started_at, 'at', r.finished_at, 'attempt', r.attempt,
            'output', r.output::text, 'metadata', r.metadata::text, 'errors', r.errors::text, 'worker', r.worker) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) as history
from pgflow.instances i
where i.run = pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer)
