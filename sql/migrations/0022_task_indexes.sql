-- The index of the runs' jobs without the tasks, and one for the unique keys of tasks: workflows write no entry there, tasks none in the first.
-- pgflow: no transaction
alter table pgflow.jobs validate constraint jobs_kind_check;
alter table pgflow.jobs validate constraint jobs_run_check;
drop index concurrently if exists pgflow.jobs_by_run;
create index concurrently jobs_by_run on pgflow.jobs (run) where run is not null;
drop index concurrently if exists pgflow.jobs_of_run;
drop index concurrently if exists pgflow.jobs_unique;
create unique index concurrently jobs_unique on pgflow.jobs (unique_key) where unique_key is not null;
