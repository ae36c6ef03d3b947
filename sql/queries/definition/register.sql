-- Stores the graphs that an app brings; a version that is stored already stays as it is. => workflow, version, hash, graph (as stored)
with brought as materialized (
    select * from unnest(%(workflows)b::text[], %(versions)b::integer[], %(hashes)b::text[], %(graphs)b::text[]) as b (workflow, version, hash, graph)
),
stored as (
    insert into pgflow.definitions as d (workflow, version, hash, graph)
    select b.workflow, b.version, b.hash, b.graph::jsonb from brought b order by b.workflow, b.version
    on conflict (workflow, version) do update
    set graph = excluded.graph  -- same hash: queues, retries, tags and configuration may change under a version, its edges may not
    where d.hash = excluded.hash and d.graph is distinct from excluded.graph
    returning d.workflow, d.version, d.hash, d.graph
)
select workflow, version, hash, graph::text from stored
union all
select d.workflow, d.version, d.hash, d.graph::text
from pgflow.definitions d join brought b on b.workflow = d.workflow and b.version = d.version
where not exists (select from stored s where s.workflow = d.workflow and s.version = d.version)
