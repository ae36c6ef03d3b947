-- A ready job with a key is in `jobs_keyed` instead of `jobs_ready`, and one without a key in neither index that limits need.
-- The claim of an older release is still correct without its `jobs_ready`, and slow: it reads all live jobs.
-- pgflow: no transaction
drop index concurrently if exists pgflow.jobs_keyed;
create index concurrently jobs_keyed on pgflow.jobs (queue, key, priority, run_at, id) where state = 'ready' and key is not null;
drop index concurrently if exists pgflow.jobs_places;
create index concurrently jobs_places on pgflow.jobs (queue, key) include (cost) where state = 'running' and key is not null;
drop index concurrently if exists pgflow.jobs_unkeyed;
create index concurrently jobs_unkeyed on pgflow.jobs (queue, priority, run_at, id) where state = 'ready' and key is null;
drop index concurrently if exists pgflow.jobs_ready;
alter index if exists pgflow.jobs_unkeyed rename to jobs_ready;
