-- What `pgflow.end_expired` looks for. Both are nearly empty: most jobs and instances have no such time.
-- pgflow: no transaction
drop index concurrently if exists pgflow.jobs_expiring;
create index concurrently jobs_expiring on pgflow.jobs (expires_at, id) where expires_at is not null;
drop index concurrently if exists pgflow.instances_overdue;
create index concurrently instances_overdue on pgflow.instances (deadline, run)
    where deadline is not null and status in ('pending', 'running', 'waiting');
