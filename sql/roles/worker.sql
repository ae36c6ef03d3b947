-- Grants a worker what its statements read and write, updates by column. It can start and cancel
-- instances and tasks only as runs of schedules, and cannot change recorded results.
grant usage on schema {schema} to {role};
grant select on
    pgflow.instances, pgflow.step_results, pgflow.jobs, pgflow.signals, pgflow.scheduled_signals, pgflow.workers, pgflow.queues,
    pgflow.node_queues, pgflow.limits, pgflow.rates, pgflow.places, pgflow.task_results, pgflow.tasks, pgflow.definitions,
    pgflow.schedules, pgflow.waiters, pgflow.migrations
to {role};
grant update (status, revision, metadata, error, finished_at) on pgflow.instances to {role};
grant insert, update (applied, targets) on pgflow.step_results to {role};
grant
    insert, delete,
    update (kind, state, step, config, queue, priority, max_attempts, solo, worker, attempt, run_at, awaits, parked_at, errors, crashes, key,
        progress, checkpoint, expires_at)
on pgflow.jobs to {role};
grant insert on pgflow.task_results to {role};
grant update (consumed_at) on pgflow.signals to {role};
grant select, delete, update (made_at) on pgflow.requests to {role};  -- update: to lock the rows that it deletes
grant insert, update (lease_expires_at, backend, attached_at), delete on pgflow.workers to {role};
grant select, delete on pgflow.stale_payloads to {role};
grant insert, update (graph, current_since) on pgflow.definitions to {role};
grant insert, update (hash, options, registered_at) on pgflow.tasks to {role};
grant delete, update (tat) on pgflow.rates to {role};  -- update: to lock the rows that it deletes
grant delete, update (expires_at) on pgflow.places to {role};
grant execute on function pgflow.now, pgflow.channel, pgflow.backoff, pgflow.is_leased, pgflow.send_due, pgflow.claim_limited,
    pgflow.take_place, pgflow.renew_places, pgflow.release_place, pgflow.end_expired, pgflow.instance_hook, pgflow.task_hook,
    pgflow.payload_references, pgflow.task_references, pgflow.declare_queues, pgflow.declare_schedules, pgflow.fire_schedules,
    pgflow.prune, pgflow.prune_archived, pgflow.prune_archived_tasks, pgflow.expired_runs, pgflow.expired_tasks,
    pgflow.forget_audit
to {role};
grant select on all sequences in schema {schema} to {role};  -- to compare them with their tables
