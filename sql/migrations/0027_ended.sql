-- Retention finds the instances of a workflow, and the executions of a task, that ended first, status by status.
-- pgflow: no transaction
drop index concurrently if exists pgflow.instances_ended;
create index concurrently instances_ended on pgflow.instances (workflow, status, finished_at, run) where finished_at is not null;
drop index concurrently if exists pgflow.task_results_ended;
create index concurrently task_results_ended on pgflow.task_results (task, status, finished_at, id);
