-- Reads one workflow's graph, of its current version unless one is given. => workflow, version, hash, graph
select d.workflow, d.version, d.hash, d.graph::text
from pgflow.definitions d
where d.workflow = %(workflow)s::text
    and (%(version)s::integer is null or d.version = %(version)s::integer)
order by d.current_since desc nulls last, d.version desc
limit 1
