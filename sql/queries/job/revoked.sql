-- Which of these leases were revoked: the job was cancelled, or rescued and claimed by another worker. => id
select h.id
from unnest(%(ids)b::bigint[], %(attempts)b::integer[]) as h (id, attempt)
where not exists (
    select from pgflow.jobs j
    where j.id = any (array[h.id]) and j.state || '' = 'running' and j.worker = %(worker)s::bigint and j.attempt = h.attempt
)
