-- What the comment on a schema says; no row when there is no such schema. => comment (null: none)
select obj_description(n.oid, 'pg_namespace') from pg_catalog.pg_namespace n where n.nspname = %(schema)s::text
