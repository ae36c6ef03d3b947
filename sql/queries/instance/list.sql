-- Lists a page of the instances that match all filters; `whole` adds their histories. => run, id, workflow, version, status, input, metadata, tags, error, created_at, finished_at, jobs, history, signals, deadline
-- Never prepared: planned for the values of each call, the planner removes conditions on null parameters, and each filter can use its index.
-- list_by_output.sql adds a condition on outputs. It is a separate query because the planner cannot start from the outputs if the condition is "... is null or ...".
select
    i.run, i.id, i.workflow, i.version, i.status, i.input::text, i.metadata::text, i.tags, i.error::text,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at,  -- text: it can represent infinity
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'run_at', j.run_at, 'awaits', j.awaits::text, 'attempt', j.attempt,
            'max_attempts', j.max_attempts, 'errors', j.errors::text, 'config', j.config::text, 'progress', j.progress::text) order by j.id)::text
        from pgflow.jobs j where j.run = i.run
    ) as jobs,
    case when %(whole)s::boolean then (
        select json_agg(json_build_object(
            'step', r.step, 'event', r.event, 'targets', r.targets, 'started_at', r.started_at, 'at', r.finished_at, 'attempt', r.attempt,
            'output', r.output::text, 'metadata', r.metadata::text, 'errors', r.errors::text, 'worker', r.worker) order by r.seq)::text
        from pgflow.step_results r where r.run = i.run
    ) end as history,
    case when %(whole)s::boolean and i.status not in ('completed', 'cancelled') then (
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
where (%(workflow)s::text is null or (i.workflow ~>=~ %(workflow)s::text and i.workflow ~<=~ %(workflow)s::text))  -- see below
    and (%(family)s::text is null or i.workflow like %(family)s::text)
    and (%(version)s::integer is null or i.version = %(version)s::integer)
    and (%(id)s::text is null or i.id = %(id)s::text)
    and (%(status)s::text is null or i.status = %(status)s::text)  -- a single status: its index also gives the order
    and (%(statuses)s::text[] is null or i.status = any (%(statuses)s::text[]))
    and (%(before)s::bigint is null or i.run < %(before)s::bigint)
    and (%(after)s::bigint is null or i.run > %(after)s::bigint)
    and (%(tags)s::text[] is null or i.tags @> %(tags)s::text[])
    and (%(metadata)s::jsonb is null or i.metadata @> %(metadata)s::jsonb)
    and (%(input)s::jsonb is null or i.input @> %(input)s::jsonb)
order by  -- planning leaves one term, or the two of instances_by_workflow: ordered by run alone, a scan could pass every other workflow's rows
    case when %(oldest)s::boolean and %(workflow)s::text is not null then i.workflow end using ~<~,
    case when %(workflow)s::text is not null then i.workflow end using ~>~,
    case when %(oldest)s::boolean then i.run end,
    i.run desc
limit %(limit)s::bigint
