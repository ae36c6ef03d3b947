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
