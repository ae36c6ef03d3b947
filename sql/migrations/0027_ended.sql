-- Retention finds the instances of a workflow that ended first, status by status. Only instances that have ended are in the index.
-- pgflow: no transaction
drop index concurrently if exists pgflow.instances_ended;
create index concurrently instances_ended on pgflow.instances (workflow, status, finished_at, run) where finished_at is not null;
