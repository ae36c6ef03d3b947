-- Finds objects whose privileges differ from those that pgflow's files grant: rights of PUBLIC, functions with another owner or search_path. => object, fault, repair (SQL)
-- A restore without owners and grants causes such drift, and so do default privileges. Objects that users created in the schema are ignored.
with home as (
    select n.oid, n.nspname, n.nspacl, t.relowner as owner
    from pg_catalog.pg_namespace n
    join pg_catalog.pg_class t on t.relnamespace = n.oid and t.relname = 'jobs' and t.relkind in ('r', 'p')
    where n.nspname = %(schema)s::text
),
relation as (
    select
        c.oid, c.relacl, c.relowner, c.relkind, h.owner,
        case c.relkind when 'S' then 'sequence' when 'v' then 'view' else 'table' end as kind,
        quote_ident(h.nspname) || '.' || quote_ident(c.relname) as name
    from home h
    join pg_catalog.pg_class c on c.relnamespace = h.oid
    where c.relkind in ('r', 'p', 'v') and c.relname = any (%(relations)s::text[])
        or c.relkind = 'S' and exists (  -- of an identity column
            select from pg_catalog.pg_depend d
            join pg_catalog.pg_class t on t.oid = d.refobjid and t.relnamespace = h.oid and t.relname = any (%(relations)s::text[])
            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype in ('i', 'a'))
),
routine as (
    select
        p.oid, p.proname::text as proname, p.proowner, p.prosecdef, p.proconfig, p.proacl, h.owner,
        quote_ident(h.nspname) || '.' || quote_ident(p.proname) as name,
        quote_ident(h.nspname) || '.' || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' as signature
    from home h
    join pg_catalog.pg_proc p on p.pronamespace = h.oid
    where p.proname = any (%(definers)s::text[] || %(pinned)s::text[] || %(closed)s::text[])
),
public_right as (
    select r.name, r.kind, a.privilege_type
    from relation r, aclexplode(r.relacl) a
    where a.grantee = 0
    union all
    select r.name, r.kind, a.privilege_type || ' of ' || c.attname
    from relation r
    join pg_catalog.pg_attribute c on c.attrelid = r.oid and c.attacl is not null, aclexplode(c.attacl) a
    where a.grantee = 0
)
select
    quote_ident(h.nspname) as object, 'PUBLIC may create objects in it' as fault,
    'revoke create on schema ' || quote_ident(h.nspname) || ' from public' as repair
from home h
where exists (select from aclexplode(h.nspacl) a where a.grantee = 0 and a.privilege_type = 'CREATE')
union all
select
    p.name, 'PUBLIC may ' || lower(string_agg(distinct p.privilege_type, ', ' order by p.privilege_type)),
    'revoke all on ' || case p.kind when 'sequence' then 'sequence ' else 'table ' end || p.name || ' from public'
from public_right p
group by p.name, p.kind
union all
select r.name, 'PUBLIC may call it', 'revoke all on function ' || r.signature || ' from public'
from routine r
where r.proname = any (%(closed)s::text[])
    and exists (select from aclexplode(coalesce(r.proacl, acldefault('f', r.proowner))) a where a.grantee = 0)
union all
select
    r.name, 'it runs with the rights of ' || pg_get_userbyid(r.proowner) || ', but ' || pg_get_userbyid(r.owner) || ' owns the tables',
    'alter function ' || r.signature || ' owner to ' || quote_ident(pg_get_userbyid(r.owner))
from routine r
where r.proname = any (%(definers)s::text[]) and r.proowner <> r.owner
union all
select
    r.name, 'it reads with the rights of ' || pg_get_userbyid(r.relowner) || ', but ' || pg_get_userbyid(r.owner) || ' owns the tables',
    'alter view ' || r.name || ' owner to ' || quote_ident(pg_get_userbyid(r.owner))
from relation r
where r.kind = 'view' and r.relowner <> r.owner
union all
select r.name, 'it is not "security definer"', 'alter function ' || r.signature || ' security definer'
from routine r
where r.proname = any (%(definers)s::text[]) and not r.prosecdef
union all
select r.name, 'it has lost its search_path', 'alter function ' || r.signature || ' set search_path = pg_catalog, pg_temp'
from routine r
where r.proname = any (%(pinned)s::text[]) and not exists (
        -- A function created under quote_all_identifiers has quotes in its setting.
        select from unnest(r.proconfig) c where replace(c, '"', '') = 'search_path=pg_catalog, pg_temp')
order by 1, 2, 3
