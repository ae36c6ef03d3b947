-- Reads one instance with its jobs, history and signals. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, jobs, history, signals, deadline
select
    i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at,  -- text: it can represent infinity
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits::text, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors::text, 'config', j.config::text, 'progress', j.progress::text) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as jobs,
    (
        select json_agg(json_build_object(
            'step', r.step, 'event', r.event, 'targets', r.targets, 'started_at', r.started_at, 'at', r.finished_at, 'attempt', r.attempt,
            'output', r.output::text, 'metadata', r.metadata::text, 'errors', r.errors::text, 'worker', r.worker) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) as history,
    case when i.status not in ('completed', 'cancelled') then (
        select json_agg(json_build_object('event', p.name, 'step', p.step, 'payload', p.payload::text, 'at', p.at, 'id', p.id) order by p.at, p.id)::text
        from (
            select s.name, s.step, s.payload, s.sent_at as at, null::bigint as id
            from pgflow.signals s where s.run = i.run and s.consumed_at is null
            union all
            select l.name, l.step, l.payload, l.due_at, l.id from pgflow.scheduled_signals l where l.run = i.run
        ) p
    ) end as signals,
    to_json(i.deadline) #>> '{}' as deadline
from pgflow.instances i
where i.run = pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer)
