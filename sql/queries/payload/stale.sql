-- Deletes the references whose objects were deleted, and reads the next ones. => id, workflow, instance, kind, name, reference
-- The rows are not locked: two workers may delete the same objects, and the second finds none.
with gone as (
    delete from pgflow.stale_payloads s where s.id = any (%(deleted)s::bigint[])
)
select s.id, s.workflow, s.instance, s.kind, s.name, s.reference::text
from pgflow.stale_payloads s
where s.id <> all (%(deleted)s::bigint[])
order by s.id
limit %(limit)s
