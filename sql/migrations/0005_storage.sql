-- What `list` and `query` filter by: each filter finds its rows by an index. The index over inputs alone goes; the new one serves that, too.
-- pgflow: no transaction
drop index concurrently if exists pgflow.instances_by_workflow;
create index concurrently instances_by_workflow on pgflow.instances (workflow text_pattern_ops, run);  -- for equality and for how names begin
drop index concurrently if exists pgflow.instances_by_status;
create index concurrently instances_by_status on pgflow.instances (status, run) where status <> 'completed';  -- the few among many
drop index concurrently if exists pgflow.instances_by_content;
create index concurrently instances_by_content on pgflow.instances using gin (input jsonb_path_ops, metadata jsonb_path_ops, tags);
drop index concurrently if exists pgflow.instances_by_input;
drop index concurrently if exists pgflow.step_results_by_output;
-- A long list of what is still to be sorted in: that is cheaper in bulk, and seldom falls to a worker. Results come and are never changed.
create index concurrently step_results_by_output on pgflow.step_results using gin (output jsonb_path_ops)
    with (gin_pending_list_limit = 16384) where output is not null;
