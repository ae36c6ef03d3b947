-- Lists a page of the instances that match a filter document. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, jobs, history, signals, deadline
select
    i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at,  -- text: it can represent infinity
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits::text, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors::text, 'config', j.config::text, 'progress', j.progress::text) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as jobs,
    null::text as history,
    null::text as signals,
    to_json(i.deadline) #>> '{}' as deadline
from pgflow.matching_runs(
    %(filter)s::jsonb, %(after)s::bigint, %(before)s::bigint, %(oldest)s::boolean, %(limit)s::bigint
) with ordinality as m (run, ord)
join pgflow.instances i on i.run = any (array[m.run])
order by m.ord
