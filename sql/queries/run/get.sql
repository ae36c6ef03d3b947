-- Reads one instance by its run. => run, id, workflow, version, status, tags, created_at, finished_at, deadline, input (its beginning), input_size, metadata, error, now
select
    i.run, i.id, i.workflow, i.version, i.status, i.tags,
    to_json(i.created_at) #>> '{}' as created_at, to_json(i.finished_at) #>> '{}' as finished_at, to_json(i.deadline) #>> '{}' as deadline,
    left(i.input::text, %(size)s::integer) as input, octet_length(i.input::text) as input_size,
    left(i.metadata::text, %(size)s::integer) as metadata, left((i.error - 'checkpoint')::text, %(size)s::integer) as error,
    to_json(pgflow.now()) #>> '{}' as now
from pgflow.instances i
where i.run = %(run)s::bigint
