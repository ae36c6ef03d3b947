-- Reads the counters: WAL of the whole server, commits of this database, rows of pgflow's tables. => wal, commits, inserted, updated, in_place, deleted
select
    (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint as wal,
    (select d.xact_commit from pg_catalog.pg_stat_database d where d.datname = current_database()) as commits,
    sum(t.n_tup_ins)::bigint as inserted, sum(t.n_tup_upd)::bigint as updated, sum(t.n_tup_hot_upd)::bigint as in_place,
    sum(t.n_tup_del)::bigint as deleted
from pg_catalog.pg_stat_all_tables t
where t.relid in (select c.oid from pg_catalog.pg_class c where c.relkind = 'r' and c.relnamespace = (
    select j.relnamespace from pg_catalog.pg_class j where j.oid = 'pgflow.jobs'::regclass))
