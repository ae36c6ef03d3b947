-- Lists the results of an instance's steps in the order of completion, up to a limit. => step, event, targets, started_at, finished_at, attempt, worker, node, pid, applied, output (its beginning), output_size, errors
select
    r.step, r.event, r.targets, to_json(r.started_at) #>> '{}' as started_at, to_json(r.finished_at) #>> '{}' as finished_at,
    r.attempt, r.worker, w.node, w.pid, r.applied,
    left(r.output::text, %(size)s::integer) as output, octet_length(r.output::text) as output_size, left(r.errors::text, %(errors_size)s::integer) as errors
from pgflow.step_results r
left join pgflow.workers w on w.id = r.worker
where r.run = %(run)s::bigint
order by r.seq
limit %(limit)s
