-- Every status is found by an index, `completed` included, as `list` and `query` filter by it. An instance that completes writes one more index entry.
-- pgflow: no transaction
drop index concurrently if exists pgflow.instances_by_any_status;
create index concurrently instances_by_any_status on pgflow.instances (status, run);
drop index concurrently if exists pgflow.instances_by_status;
