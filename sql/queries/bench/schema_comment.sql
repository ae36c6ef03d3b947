-- The comment on a schema; no row when the schema does not exist. => comment (null: none)
select obj_description(n.oid, 'pg_namespace') from pg_catalog.pg_namespace n where n.nspname = %(schema)s::text
