-- Jobs that back off or wait for an operator are few among the parked ones: the dashboard counts them by an index of their own.
-- pgflow: no transaction
drop index concurrently if exists pgflow.jobs_attention;
create index concurrently jobs_attention on pgflow.jobs (state, run_at) where state = 'scheduled' or (state = 'parked' and kind = 'execute');
