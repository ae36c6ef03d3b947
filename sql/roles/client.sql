-- An application: it starts instances, signals, cancels and retries them through the functions, and has no right on any table. Of the
-- ledger it may read how far the schema is, so that it can say so when it is too old for it.
grant usage on schema {schema} to {role};
grant execute on function
    pgflow.start, pgflow.start_many, pgflow.resume, pgflow.resume_run, pgflow.schedule_resume, pgflow.schedule_resume_run, pgflow.unschedule,
    pgflow.cancel, pgflow.cancel_run, pgflow.retry, pgflow.retry_run,
    pgflow.once, pgflow.begin_request, pgflow.answered,
    pgflow.find(text, text), pgflow.find(text, text, integer),
    pgflow.channel
to {role};
grant select on pgflow.migrations to {role};
