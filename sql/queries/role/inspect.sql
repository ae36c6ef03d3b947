-- Checks whether rights in a schema can be granted to these roles. => owned (we may act as its owner), missing, above (may act as its owner, and so has every right), creating (may create objects in it)
select
    pg_has_role(t.relowner, 'usage') and pg_has_role(n.nspowner, 'usage'),
    array(
        select a.name from unnest(%(roles)s::text[]) a (name)
        where not exists (select from pg_catalog.pg_roles r where r.rolname = a.name) order by a.name
    ),
    array(
        select r.rolname::text from pg_catalog.pg_roles r
        where r.rolname = any (%(roles)s::text[]) and (pg_has_role(r.oid, t.relowner, 'member') or pg_has_role(r.oid, n.nspowner, 'member'))
        order by r.rolname
    ),
    array(
        select r.rolname::text from pg_catalog.pg_roles r
        where r.rolname = any (%(roles)s::text[]) and has_schema_privilege(r.oid, n.oid, 'create') order by r.rolname
    )
from pg_catalog.pg_namespace n
join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'jobs'
where n.nspname = %(schema)s::text
