-- Finds the invalid indexes of the schema. => name, table, building (whether it is being built now)
select
    i.relname::text, t.relname::text,
    exists (  -- most roles do not see which index another role builds: it may be any
        select from pg_catalog.pg_stat_progress_create_index b
        where b.datname = current_database() and coalesce(nullif(b.index_relid, 0), x.indexrelid) = x.indexrelid)
from pg_catalog.pg_index x
join pg_catalog.pg_class i on i.oid = x.indexrelid
join pg_catalog.pg_class t on t.oid = x.indrelid
where i.relnamespace = (select c.relnamespace from pg_catalog.pg_class c where c.oid = 'pgflow.jobs'::regclass)
    and not (x.indisvalid and x.indisready)
order by i.relname
