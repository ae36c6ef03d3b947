-- What a token is about, for people and tools: one row per live token, with the tags and the metadata that it has from its workflow,
-- its instance and the steps that have completed. Not columns of `jobs`: each step would copy them. New columns go to the end.
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
    -- What comes later wins; `step` is pgflow's own also where the token has none, and what the starter gave along for telemetry is for events only.
    ((i.metadata || coalesce((
        select jsonb_object_agg(m.key, m.value order by r.seq)
        from pgflow.step_results r cross join jsonb_each(case when jsonb_typeof(r.metadata) = 'object' then r.metadata end) m
        where r.run = j.run
    ), '{}')) - array['pgflow:telemetry', 'step'])
        || jsonb_build_object('workflow', i.workflow, 'instance_id', i.id, 'run', j.run, 'workflow_version', i.version)
        || case when j.step <> '' then jsonb_build_object('step', j.step) else '{}' end as meta,
    coalesce(j.errors, '[]') as errors
from pgflow.jobs j
join pgflow.instances i on i.run = j.run;
