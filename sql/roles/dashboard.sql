-- Grants a read-only role what it needs: SELECT on every table and view, inputs and outputs included, and the functions that
-- `pgflow show`, `why`, `top`, `list --filter` and `queue list` call.
grant usage on schema {schema} to {role};
grant select on
    pgflow.instances, pgflow.step_results, pgflow.jobs, pgflow.signals, pgflow.scheduled_signals, pgflow.requests, pgflow.workers, pgflow.queues,
    pgflow.node_queues, pgflow.limits, pgflow.rates, pgflow.places, pgflow.task_results, pgflow.tasks, pgflow.definitions, pgflow.business_ids, pgflow.stale_payloads,
    pgflow.schedules, pgflow.waiters, pgflow.audit, pgflow.migrations, pgflow.job_details, pgflow.instance_overview, pgflow.queue_overview
to {role};
grant execute on function
    pgflow.find(text, text), pgflow.find(text, text, integer), pgflow.matching_runs, pgflow.has_error, pgflow.failed_queue, pgflow.matching_tasks, pgflow.known_queues,
    pgflow.why, pgflow.why_job, pgflow.backlog, pgflow.throughput
to {role};
grant select on all sequences in schema {schema} to {role};  -- `pgflow doctor` compares them with their tables
