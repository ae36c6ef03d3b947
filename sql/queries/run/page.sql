-- A page of the instances that match a filter document, as a list shows them. => run, id, workflow, version, status, tags, created_at, finished_at, deadline, error_step, error_type, error_reason, jobs (at most 4, as JSON), job_count, done, total
-- What one row costs is bounded: four of its jobs, a thousand of its results. Steps are counted once for each version of a workflow.
with page as materialized (
    select m.run, m.ord
    from pgflow.matching_runs(%(filter)s::jsonb, %(after)s::bigint, %(before)s::bigint, %(oldest)s::boolean, %(limit)s::bigint) with ordinality as m (run, ord)
), rows as materialized (
    select p.ord, i.* from page p join pgflow.instances i on i.run = any (array[p.run])
), totals as (
    select d.workflow, d.version, (select count(*) from jsonb_object_keys(d.graph -> 'steps')) as steps
    from pgflow.definitions d
    where (d.workflow, d.version) in (select r.workflow, r.version from rows r)
)
select
    i.run, i.id, i.workflow, i.version, i.status, i.tags,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at, to_json(i.deadline) #>> '{}' as deadline,
    i.error ->> 'step' as error_step, left(i.error ->> 'type', 200) as error_type, left(i.error ->> 'reason', 500) as error_reason,
    (
        select json_agg(json_build_object(
            'step', j.step, 'kind', j.kind, 'state', j.state, 'attempt', j.attempt, 'run_at', j.run_at, 'has_failed', j.errors is not null) order by j.id)::text
        from (select * from pgflow.jobs j where j.run = any (array[i.run]) order by j.id limit 4) j
    ) as jobs,
    (select count(*) from (select from pgflow.jobs j where j.run = any (array[i.run]) limit 1001) j) as job_count,
    (select count(*) from (select from pgflow.step_results r where r.run = any (array[i.run]) limit 1001) r) as done,
    t.steps as total
from rows i
left join totals t on t.workflow = i.workflow and t.version = i.version
order by i.ord
