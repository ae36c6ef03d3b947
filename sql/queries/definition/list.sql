-- Lists all registered versions of workflows, the current one of each first. => workflow, version, steps, registered_at, is_current
select
    d.workflow, d.version, (select count(*) from jsonb_object_keys(d.graph -> 'steps')) as steps, d.registered_at,
    row_number() over (partition by d.workflow order by d.current_since desc nulls last, d.version desc) = 1 as is_current
from pgflow.definitions d
order by d.workflow, is_current desc, d.version desc
