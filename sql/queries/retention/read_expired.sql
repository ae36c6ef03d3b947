-- Reads whole instances that ended too long ago, for an archive, at most `limit`. => revision, run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, jobs, history, signals, deadline
select
    e.revision, i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at,  -- text: it can represent infinity
    null::text as jobs,
    (
        select json_agg(json_build_object(
            'step', r.step, 'event', r.event, 'targets', r.targets, 'started_at', r.started_at, 'at', r.finished_at, 'attempt', r.attempt,
            'output', r.output::text, 'metadata', r.metadata::text, 'errors', r.errors::text, 'worker', r.worker) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) as history,
    case when i.status = 'failed' then (
        select json_agg(json_build_object('event', p.name, 'step', p.step, 'payload', p.payload::text, 'at', p.at, 'id', p.id) order by p.at, p.id)::text
        from (
            select s.name, s.step, s.payload, s.sent_at as at, null::bigint as id
            from pgflow.signals s where s.run = i.run and s.consumed_at is null
            union all
            select l.name, l.step, l.payload, l.due_at, l.id from pgflow.scheduled_signals l where l.run = i.run
        ) p
    ) end as signals,
    to_json(i.deadline) #>> '{}' as deadline
from pgflow.expired_runs(
    make_interval(secs => %(completed)s::double precision), make_interval(secs => %(failed)s::double precision),
    make_interval(secs => %(cancelled)s::double precision), %(max_count)s::bigint, %(overrides)s::boolean, %(limit)s::integer) e
join pgflow.instances i on i.run = any (array[e.run]) and i.revision = e.revision
