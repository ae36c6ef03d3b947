-- Lists the runs of a business id, newest first, up to a limit. => run, workflow, status, created_at
select i.run, i.workflow, i.status, to_json(i.created_at) #>> '{}' as created_at
from pgflow.instances i
where i.id = %(id)s::text
order by i.run desc
limit %(limit)s
