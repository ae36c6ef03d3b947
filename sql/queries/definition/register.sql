-- Stores the graphs that an app brings; a version that is stored already stays as it is. => workflow, version, hash, graph (as stored)
with brought as materialized (
    select * from unnest(%(workflows)b::text[], %(versions)b::integer[], %(hashes)b::text[], %(graphs)b::text[], %(currents)b::integer[])
        as b (workflow, version, hash, graph, is_current)
),
standing as materialized (
    select distinct on (d.workflow) d.workflow, d.version
    from pgflow.definitions d
    where d.current_since is not null and d.workflow = any (%(workflows)b::text[])
    order by d.workflow, d.current_since desc, d.version desc
),
named as materialized (
    -- An app may set back what it knows. One that has never heard of the standing version is an older one, and only a higher version moves it.
    select b.workflow, b.version
    from brought b left join standing s on s.workflow = b.workflow
    where b.is_current = 1 and b.version is distinct from s.version and (
        s.version is null or b.version > s.version
        or exists (select from brought k where k.workflow = s.workflow and k.version = s.version))
),
stored as (
    insert into pgflow.definitions as d (workflow, version, hash, graph, current_since)
    select b.workflow, b.version, b.hash, b.graph::jsonb, case when n.version is not null then pgflow.now() end
    from brought b left join named n on n.workflow = b.workflow and n.version = b.version
    order by b.workflow, b.version
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
from pgflow.definitions d join brought b on b.workflow = d.workflow and b.version = d.version
where not exists (select from stored s where s.workflow = d.workflow and s.version = d.version)
