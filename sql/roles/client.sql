-- Grants an application what it needs: EXECUTE on the client functions, which start, signal, cancel and retry instances and tasks, act for an
-- operator, take places of limits and manage schedules. It may read `migrations`, so that it can report a schema that is too new for it, and
-- `schedules`, whose instants it computes; no other table.
grant usage on schema {schema} to {role};
grant execute on function
    pgflow.start, pgflow.start_many, pgflow.resume, pgflow.resume_run, pgflow.schedule_resume, pgflow.schedule_resume_run, pgflow.unschedule,
    pgflow.cancel, pgflow.cancel_run, pgflow.retry, pgflow.retry_run,
    pgflow.enqueue, pgflow.enqueue_many, pgflow.cancel_task, pgflow.retry_task, pgflow.update_task, pgflow.complete_task, pgflow.fail_task, pgflow.await_tasks,
    pgflow.retry_step, pgflow.retry_step_run, pgflow.complete_step, pgflow.complete_step_run, pgflow.fail_step, pgflow.fail_step_run,
    pgflow.once, pgflow.begin_request, pgflow.answered,
    pgflow.find(text, text), pgflow.find(text, text, integer),
    pgflow.take_place, pgflow.renew_places, pgflow.release_place,
    pgflow.add_schedule, pgflow.pause_schedule, pgflow.resume_schedule, pgflow.remove_schedule, pgflow.run_schedule, pgflow.start_instants,
    pgflow.channel
to {role};
grant select on pgflow.migrations, pgflow.schedules to {role};
