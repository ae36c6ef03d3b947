-- The engine's tables. sql/README.md says what each row means, who may write it, and in which order rows are locked.

-- The only clock. Stable, so that an index on a time column can be used; the statement's time, so that a long transaction does not see an old one.
create function pgflow.now() returns timestamptz
language sql stable parallel safe
as $$ select statement_timestamp() $$;

-- One run of a workflow. Written at start, at forks and joins, when the status changes and at the end; never on a linear stretch.
create table pgflow.instances (
    run bigint generated always as identity primary key,
    id text not null,                                   -- business id: "{unique key}::{value}"
    workflow text not null,
    version integer not null check (version > 0),
    status text not null default 'running'
        check (status in ('pending', 'running', 'waiting', 'completed', 'failed', 'cancelled')),
    revision integer not null default 0,                -- +1 with each change that a decision could depend on
    unique_key text,                                    -- at most one active instance has it; null: any number may
    input jsonb not null,
    tags text[] not null default '{}',
    metadata jsonb not null default '{}',
    error jsonb,                                        -- {"step", "reason", "attempt", "attempts": [...]}
    created_at timestamptz not null default pgflow.now(),
    finished_at timestamptz,
    check ((finished_at is null) = (status in ('pending', 'running', 'waiting')))
) with (fillfactor = 85);

create unique index instances_one_active on pgflow.instances (unique_key) where status in ('pending', 'running', 'waiting');
create index instances_by_id on pgflow.instances (id, run);
create index instances_by_input on pgflow.instances using gin (input jsonb_path_ops);

-- What each step came to: history, context and fan-in in one. Inserted once per (run, step); an insert never waits for a sibling's.
create table pgflow.step_results (
    run bigint not null,
    seq bigint generated always as identity,            -- the order of completion
    started_at timestamptz not null,
    finished_at timestamptz not null default pgflow.now(),
    worker bigint,
    attempt integer not null,
    applied boolean not null default true,              -- false: recorded, and an advance token will fold it into the instance
    step text not null,
    event text not null,
    targets text[],                                     -- what a route chose; null: the event's declared targets
    output jsonb,
    metadata jsonb,
    errors jsonb,                                       -- the attempts that failed before this one
    primary key (run, step)
);

-- The tokens: each row is the right to move one branch of one instance. Live work only, narrow, moved in place from step to step.
create table pgflow.jobs (
    id bigint generated always as identity primary key,
    run bigint not null,
    run_at timestamptz default pgflow.now(),            -- null: parked without a timer
    worker bigint,                                      -- who holds it while it runs
    attempt integer not null default 0,                 -- counted when claimed, so that a crash cannot skip it
    max_attempts smallint not null default 5,
    priority smallint not null default 0,               -- lower goes first
    solo boolean not null default true,                 -- the only live token of its instance: its holder decides alone
    kind text not null default 'execute' check (kind in ('execute', 'resume', 'advance')),
    state text not null default 'ready' check (state in ('ready', 'running', 'scheduled', 'parked')),
    step text not null,
    queue text not null default 'default',
    config jsonb,
    awaits jsonb,                                       -- the signals this wait takes: {"name": "event it becomes"}
    errors jsonb,                                       -- failed attempts so far
    check ((worker is not null) = (state = 'running')),
    check (run_at is not null or state = 'parked')
) with (
    fillfactor = 70,                                    -- room for in-place moves: they touch no indexed column
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05
);

create index jobs_ready on pgflow.jobs (queue, priority, run_at, id) where state = 'ready';
create index jobs_due on pgflow.jobs (run_at, id) where state in ('scheduled', 'parked');
create index jobs_running on pgflow.jobs (worker) where state = 'running';
create index jobs_of_run on pgflow.jobs (run);

-- The mailbox: a signal stays until a wait consumes it, also when it comes before the wait.
create table pgflow.signals (
    id bigint generated always as identity primary key,
    run bigint not null,
    step text,                                          -- null: whichever step waits for it
    name text not null,
    payload jsonb,
    sent_at timestamptz not null default pgflow.now(),
    consumed_at timestamptz
);

create index signals_kept on pgflow.signals (run, id) where consumed_at is null;

-- One row per worker process and start; the lease is renewed here, never per job.
create table pgflow.workers (
    id bigint generated always as identity primary key,
    node text not null,
    pid integer not null,
    queues text[] not null,
    version text not null,
    started_at timestamptz not null default pgflow.now(),
    lease_expires_at timestamptz not null
) with (fillfactor = 50);

-- Queues need no row to exist; a row changes how one behaves, at run time.
create table pgflow.queues (
    name text primary key,
    paused_at timestamptz
);

-- The graphs that apps brought: plain SQL starts a workflow from them, and a changed graph under an old version is refused.
create table pgflow.definitions (
    workflow text not null,
    version integer not null check (version > 0),
    hash text not null,
    graph jsonb not null,
    registered_at timestamptz not null default pgflow.now(),
    primary key (workflow, version)
);
