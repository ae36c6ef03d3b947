-- Finds the tables to which row-level security applies for a role. => table, role, forced (applies to the owner, too), permitted (policies let every row pass), strict (this session raises an error for a query that a policy would filter)
-- `roles` null: the tables' owner and every role with privileges on them; empty: the owner and the current user.
with line as (
    select
        c.oid, c.relforcerowsecurity as forced, quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name,
        r.oid as role, r.rolname::text as role_name
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relrowsecurity and c.relname = any (%(relations)s::text[])
    join pg_catalog.pg_roles r on not r.rolsuper and not r.rolbypassrls
    where n.nspname = %(schema)s::text
        -- The functions of the client API run as the owner for every caller.
        and (c.relforcerowsecurity and r.oid = c.relowner
            or (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'usage'))
                and (%(roles)s::text[] is null or r.rolname = any (%(roles)s::text[]) or %(roles)s::text[] = '{}' and r.rolname = current_user)
                and exists (
                    select from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                    where case when %(roles)s::text[] is null then a.grantee = r.oid
                        else a.grantee = 0 or pg_has_role(r.oid, a.grantee, 'usage') end))
),
policy as (
    select
        l.oid, l.role, p.polpermissive,
        p.polcmd = '*' and coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') = 'true'
            and coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'true') = 'true' as is_open
    from line l
    join pg_catalog.pg_policy p on p.polrelid = l.oid
    where exists (
        select from unnest(p.polroles) t (role) where case when t.role = 0 then true else pg_has_role(l.role, t.role, 'usage') end)
)
select
    l.name, l.role_name, l.forced,
    exists (select from policy p where p.oid = l.oid and p.role = l.role and p.polpermissive and p.is_open)
        and not exists (select from policy p where p.oid = l.oid and p.role = l.role and not p.polpermissive and not p.is_open),
    current_setting('row_security') = 'off'
from line l
order by l.name, l.role_name
