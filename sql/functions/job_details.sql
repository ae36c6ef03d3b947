-- Shows each live job with the tags and metadata of its workflow, its instance and the completed steps, for people and tools.
-- They are not columns of `jobs` because each step would copy them. `create or replace view` can add columns at the end only.
create or replace view pgflow.job_details as
select
    j.id, j.run, i.id as instance_id, i.workflow, i.version, j.step, j.kind, j.state, j.queue, j.priority, j.attempt, j.max_attempts, j.run_at, j.worker,
    array(
        select t.tag
        from unnest(
            array[lower(regexp_replace(i.workflow, '(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', 'g'))] || i.tags
        ) with ordinality as t (tag, ord)
        group by t.tag order by min(t.ord)
    ) as tags,
    -- Later values win. `step` is reserved for pgflow even where a job has none, and the caller's telemetry context is for events only.
    ((i.metadata || coalesce((
        select jsonb_object_agg(m.key, m.value order by r.seq)
        from pgflow.step_results r cross join jsonb_each(case when jsonb_typeof(r.metadata) = 'object' then r.metadata end) m
        where r.run = j.run
    ), '{}')) - array['pgflow:telemetry', 'step'])
        || jsonb_build_object('workflow', i.workflow, 'instance_id', i.id, 'run', j.run, 'workflow_version', i.version)
        || case when j.step <> '' then jsonb_build_object('step', j.step) else '{}' end as meta,
    coalesce(j.errors, '[]') as errors,
    j.progress
from pgflow.jobs j
join pgflow.instances i on i.run = j.run;
