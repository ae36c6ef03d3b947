-- Compares each identity column's sequence with the highest value in use. => table, column, sequence (null: the column has none), highest, last (null: unknown to this role, 0: none given out), maximum (null where the sequence cycles), repair
-- Each `max` reads one end of an index. `step_results.seq` has no index: only the results of the latest runs are examined.
with identity as materialized (
    select i.name, i.col, i.highest, pg_get_serial_sequence(i.name, i.col)::regclass::oid as sequence
    from (
        values
            -- A run id is in use while any row refers to it: a new instance must not inherit the results of an earlier one.
            ('pgflow.instances', 'run', greatest(
                (select max(run) from pgflow.instances), (select max(run) from pgflow.jobs), (select max(run) from pgflow.step_results),
                (select max(run) from pgflow.signals), (select max(run) from pgflow.scheduled_signals))),
            ('pgflow.step_results', 'seq', (
                select max(r.seq) from (select l.seq from pgflow.step_results l order by l.run desc limit 1000) r)),
            ('pgflow.jobs', 'id', greatest((select max(id) from pgflow.jobs), (select max(id) from pgflow.task_results))),  -- of ended tasks
            ('pgflow.signals', 'id', (select max(id) from pgflow.signals)),
            ('pgflow.scheduled_signals', 'id', (select max(id) from pgflow.scheduled_signals)),
            ('pgflow.workers', 'id', greatest(
                (select max(id) from pgflow.workers), (select max(worker) from pgflow.jobs where state = 'running')))
    ) i (name, col, highest)
)
select
    i.name, i.col, n.nspname || '.' || c.relname, coalesce(i.highest, 0),
    case when has_sequence_privilege(i.sequence, 'select, usage') then coalesce(pg_sequence_last_value(i.sequence), 0) end,
    case when not s.seqcycle then s.seqmax end,
    case when i.sequence is null
        then 'alter table ' || i.name || ' alter ' || i.col || ' add generated always as identity (start ' || (coalesce(i.highest, 0) + 1) || ')'
        else 'select setval(' || quote_literal(quote_ident(n.nspname) || '.' || quote_ident(c.relname)) || ', ' || greatest(i.highest, 1) || ')'
    end
from identity i
left join pg_catalog.pg_sequence s on s.seqrelid = i.sequence
left join pg_catalog.pg_class c on c.oid = i.sequence
left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by i.name
