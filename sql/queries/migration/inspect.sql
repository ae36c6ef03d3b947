-- Inspects a schema through the catalog, which needs no privileges in it. => present, relations, ours (has the table of migrations), readable, engine (has the engine's tables), shared (PUBLIC may create in it), made_for (the schema that its functions name, null: none), moved (other schemas whose functions name this one)
with functions as materialized (
    select o.nspname::text as schema, substring(p.prosrc from $$'"?([a-z_][a-z0-9_]*)"?[.]jobs'::regclass$$) as named
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace o on o.oid = p.pronamespace
    where p.proname = 'channel' and p.pronargs = 0
)
select
    n.oid is not null,
    (select count(*) from pg_catalog.pg_class c
        where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
            and not exists (  -- except those of an extension
                select from pg_catalog.pg_depend d
                where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')),
    l.oid is not null,
    coalesce(has_schema_privilege(n.oid, 'usage') and has_table_privilege(l.oid, 'select'), false),
    (select count(*) from pg_catalog.pg_class e
        where e.relnamespace = n.oid and e.relkind = 'r' and e.relname in ('instances', 'step_results', 'jobs', 'signals')) = 4,
    coalesce(has_schema_privilege('public', n.oid, 'create'), false),
    -- Renaming a schema does not change the bodies of functions.
    (select f.named from functions f where f.schema = asked.schema),
    array(select f.schema from functions f where f.named = asked.schema and f.schema <> asked.schema order by f.schema)
from (values (%(schema)s::text)) asked (schema)
left join pg_catalog.pg_namespace n on n.nspname = asked.schema
left join pg_catalog.pg_class l on l.relnamespace = n.oid and l.relname = 'migrations' and l.relkind = 'r'
    and (  -- other tools have a table "migrations", too: ours has these columns
        select count(*) from pg_catalog.pg_attribute a
        where a.attrelid = l.oid and a.attname in ('version', 'name', 'checksum', 'breaking', 'applied_at') and not a.attisdropped) = 5
