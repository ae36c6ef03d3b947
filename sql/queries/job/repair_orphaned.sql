-- Repairs orphaned instances: gives a job to each active instance of a page without one, so that it resumes where it stopped. => queues, jobs, last_run (last run of the page, null: it was the last page)
-- Cannot occur in normal operation, where a job is deleted only when its instance ends: the job row was deleted manually, or by a bug.
with page as materialized (
    select l.run, l.revision, l.workflow, l.version
    from unnest(array['pending', 'running', 'waiting']) as s (status)
    cross join lateral (  -- one ordered index range per status; with `status = s.status` the planner may read all runs for a status without any
        select i.run, i.revision, i.workflow, i.version
        from pgflow.instances i
        where (i.status, i.run) > (s.status, %(after)s) and i.status <= s.status and i.status <> 'completed'
        order by i.status, i.run
        limit %(limit)s
    ) l
    order by l.run
    limit %(limit)s
),
orphaned as materialized (  -- offset 0: an index lookup per instance; a join would read all of jobs
    select p.* from page p where not exists (select from pgflow.jobs j where j.run = p.run offset 0)
),
held as materialized (  -- compares the revision: if a faster worker has repaired it, our snapshot does not show the new job
    select i.run, i.input, a.workflow, a.version
    from orphaned a join pgflow.instances i on i.run = any (array[a.run])
    where i.revision = a.revision
    order by a.run
    for no key update of i skip locked
),
moved as (
    update pgflow.instances i set revision = i.revision + 1 where i.run = any (array(select h.run from held h))
),
applied as (
    update pgflow.step_results r set applied = true where r.run = any (array(select h.run from held h)) and not r.applied
),
born as (
    insert into pgflow.jobs (run, kind, step, queue, key, cost)
    select
        h.run, 'advance', '', coalesce(d.graph #>> array['steps', d.graph ->> 'initial', 'queue'], 'default'),
        pgflow.job_key(d.graph, h.input), coalesce((d.graph ->> 'weight')::smallint, 1::smallint)
    from held h left join pgflow.definitions d on d.workflow = h.workflow and d.version = h.version
    order by h.run
    returning queue
)
select
    coalesce((select array_agg(distinct b.queue) from born b), '{}') as queues,
    (select count(*) from born) as jobs,
    (select max(p.run) from page p having count(*) = %(limit)s) as last_run
