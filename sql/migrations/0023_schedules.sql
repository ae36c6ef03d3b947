-- When to start which workflow or task. SQL cannot compute the next instant of a cron expression: a worker does, and starts the run.
create table pgflow.schedules (
    name text primary key,
    target text not null,                               -- the name of the workflow or task
    kind text not null check (kind in ('workflow', 'task')),
    cron text,
    every double precision check (every >= 1),          -- seconds, counted from 1970
    tz text not null default 'UTC',
    input jsonb,                                        -- the workflow's input or the task's arguments; null: none were given
    value text not null,                                -- template of a workflow's business value, with {instant} in it
    overlap text not null check (overlap in ('skip', 'queue', 'cancel_old', 'allow')),
    catch_up text not null check (catch_up in ('none', 'last', 'all')),
    jitter double precision not null default 0 check (jitter >= 0),
    revision bigint not null default 0,                 -- +1 with each change that a decision could depend on
    handled_at timestamptz not null,                    -- the instants up to here have been started or dropped, and never fire again
    next_at timestamptz,                                -- when a worker has to look: at the next instant, or at once; null: paused, or none follows
    queued_until timestamptz,                           -- overlap queue: instants up to here came while a run was active; they wait, and were not missed
    last_at timestamptz,                                -- the last instant that was started
    last_run bigint,                                    -- as this instance or task
    last_error jsonb,                                   -- {"reason", "at"} of the last start if it was refused
    fired bigint not null default 0,
    skipped bigint not null default 0,                  -- an earlier run was active
    missed bigint not null default 0,                   -- no worker ran
    paused_at timestamptz,
    paused_by text,
    declared_by text,                                   -- the app that has it in its code; null: added at run time
    last_declared_at timestamptz,
    undeclared_at timestamptz,                          -- since when a worker of that app runs that does not declare it
    created_at timestamptz not null default pgflow.now(),
    check ((cron is null) <> (every is null)),
    constraint schedules_input_limit check (octet_length(input::text) <= 3145728)
) with (fillfactor = 50);

create index schedules_due on pgflow.schedules (target, next_at);
