-- Registers an app's graphs. A stored version with another hash is left unchanged, for the caller to compare. => workflow, version, hash, graph (as stored)
with given as materialized (
    select * from unnest(%(workflows)b::text[], %(versions)b::integer[], %(hashes)b::text[], %(graphs)b::text[], %(currents)b::integer[])
        as g (workflow, version, hash, graph, is_current)
),
current_versions as materialized (
    select distinct on (d.workflow) d.workflow, d.version
    from pgflow.definitions d
    where d.current_since is not null and d.workflow = any (%(workflows)b::text[])
    order by d.workflow, d.current_since desc, d.version desc
),
promoted as materialized (
    -- An app may make a lower version current only if it knows the current one. Otherwise it is an older app.
    select g.workflow, g.version
    from given g left join current_versions c on c.workflow = g.workflow
    where g.is_current = 1 and g.version is distinct from c.version and (
        c.version is null or g.version > c.version
        or exists (select from given k where k.workflow = c.workflow and k.version = c.version))
),
stored as (
    insert into pgflow.definitions as d (workflow, version, hash, graph, current_since)
    select g.workflow, g.version, g.hash, g.graph::jsonb, case when p.version is not null then pgflow.now() end
    from given g left join promoted p on p.workflow = g.workflow and p.version = g.version
    order by g.workflow, g.version
    on conflict (workflow, version) do update
    -- same hash: queues, retries, tags and configuration may change under a version; its edges, unique key and scope may not
    set graph = excluded.graph, current_since = coalesce(excluded.current_since, d.current_since)
    where d.hash = excluded.hash
        and coalesce(nullif(d.graph -> 'unique', 'null'), excluded.graph -> 'unique') = excluded.graph -> 'unique'  -- absent: not recorded yet
        and (d.graph is distinct from excluded.graph or excluded.current_since is not null)
    returning d.workflow, d.version, d.hash, d.graph
)
select workflow, version, hash, graph::text from stored
union all
select d.workflow, d.version, d.hash, d.graph::text
from pgflow.definitions d join given g on g.workflow = d.workflow and g.version = d.version
where not exists (select from stored s where s.workflow = d.workflow and s.version = d.version)
