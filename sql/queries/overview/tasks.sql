-- Lists the registered tasks. => name, queue, priority, max_attempts, registered_at
select
    t.name, coalesce(t.options ->> 'queue', 'default') as queue, (t.options ->> 'priority')::integer as priority,
    (t.options ->> 'max_attempts')::integer as max_attempts, t.registered_at
from pgflow.tasks t
order by t.name
