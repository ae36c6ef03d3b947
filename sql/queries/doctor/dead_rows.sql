-- Reads the statistics of the jobs table. => dead, live (rows), vacuumed (seconds ago, null: never)
select
    t.n_dead_tup, t.n_live_tup,
    extract(epoch from statement_timestamp() - greatest(t.last_vacuum, t.last_autovacuum))::double precision as vacuumed
from pg_catalog.pg_stat_all_tables t
where t.relid = 'pgflow.jobs'::regclass
