-- The references to a payload store in the rows of some runs. => workflow, instance, kind, name, reference
-- A reference is short, so values that are longer are not read from their TOAST tables.
create or replace function pgflow.payload_references(runs bigint[])
returns table (workflow text, instance text, kind text, name text, reference jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select i.workflow, i.id, v.kind, v.name, v.value -> 'pgflow:ref'
    from pgflow.instances i
    cross join lateral (
        select 'input', '', i.input
        union all select 'output', r.step, r.output from pgflow.step_results r where r.run = i.run
        union all select 'payload', s.name, s.payload from pgflow.signals s where s.run = i.run
        union all select 'payload', s.name, s.payload from pgflow.scheduled_signals s where s.run = i.run
    ) v (kind, name, value)
    where i.run = any (runs) and pg_column_size(v.value) < 512 and jsonb_typeof(v.value -> 'pgflow:ref') = 'object'
$$;
revoke all on function pgflow.payload_references(bigint[]) from public;

-- The same for tasks, live and ended, by the ids of their jobs: arguments are bound to the task, an output to task and job. => task, instance, kind, reference
create or replace function pgflow.task_references(ids bigint[]) returns table (task text, instance text, kind text, reference jsonb)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select v.task, v.instance, v.kind, v.value -> 'pgflow:ref'
    from unnest(ids) g (id)
    cross join lateral (
        select j.step as task, '' as instance, 'input' as kind, j.args as value from pgflow.jobs j where j.id = g.id and j.kind = 'task'
        union all select r.task, '', 'input', r.args from pgflow.task_results r where r.id = g.id
        union all select r.task, r.id::text, 'output', r.output from pgflow.task_results r where r.id = g.id
        offset 0
    ) v
    where pg_column_size(v.value) < 512 and jsonb_typeof(v.value -> 'pgflow:ref') = 'object'
$$;
revoke all on function pgflow.task_references(bigint[]) from public;
