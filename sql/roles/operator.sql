-- Grants an operator what it needs: EXECUTE on the functions that signal, cancel, retry, change and delete instances, one by one or by filter,
-- that prune, and that explain why something waits; reading the audit and the schedules. It starts nothing, and has no rights on other
-- tables. For lists, grant it the part of a dashboard, too.
grant usage on schema {schema} to {role};
grant execute on function
    pgflow.cancel, pgflow.cancel_run, pgflow.retry, pgflow.retry_run, pgflow.cancel_task, pgflow.retry_task, pgflow.update_task,
    pgflow.complete_task, pgflow.fail_task, pgflow.delete_task,
    pgflow.retry_step, pgflow.retry_step_run, pgflow.complete_step, pgflow.complete_step_run, pgflow.fail_step, pgflow.fail_step_run,
    pgflow.run_step_now, pgflow.resume_run,
    pgflow.pause_queue, pgflow.resume_queue, pgflow.drain_queue, pgflow.scale_queue, pgflow.set_limit, pgflow.clear_limit, pgflow.known_queues,
    pgflow.pause_schedule, pgflow.resume_schedule, pgflow.remove_schedule,
    pgflow.bulk_count, pgflow.bulk_begin, pgflow.bulk_batch, pgflow.prune,
    pgflow.why, pgflow.why_job, pgflow.backlog, pgflow.throughput,
    pgflow.once, pgflow.begin_request, pgflow.answered,
    pgflow.find(text, text), pgflow.find(text, text, integer),
    pgflow.channel
to {role};
grant select on pgflow.audit, pgflow.migrations, pgflow.schedules to {role};
