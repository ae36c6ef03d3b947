-- Lists a page of the ids of the tasks that match a filter document. => id
select m.id
from pgflow.matching_tasks(%(filter)s::jsonb, %(after)s::bigint, %(before)s::bigint, %(oldest)s::boolean, %(limit)s::bigint) with ordinality as m (id, ord)
order by m.ord
