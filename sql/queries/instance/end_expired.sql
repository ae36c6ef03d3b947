-- Ends instances that are past their deadline, or whose first job was not started in time. => run, id, workflow, version, status, reason, age (seconds)
select e.run, e.id, e.workflow, e.version, e.status, e.reason, e.age from pgflow.end_expired(%(limit)s::integer) e
