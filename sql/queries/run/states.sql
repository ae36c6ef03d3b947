-- Counts the instances of each status, up to a limit each. => status, count
-- Each status but 'completed' has a partial index; completed ones are the many, of which a scan finds enough at once.
select s.status, (
    case when s.status = 'completed' then (
        select count(*) from (select from pgflow.instances i where i.status = 'completed' limit %(limit)s::bigint) c
    ) else (
        select count(*) from (select from pgflow.instances i where i.status = s.status and i.status <> 'completed' limit %(limit)s::bigint) c
    ) end
) as count
from unnest(array['pending', 'running', 'waiting', 'completed', 'failed', 'cancelled']) as s (status)
