-- Tasks: plain functions with arguments of their own. A live task is one row of `jobs`, of the kind `task` and without a run; an ended one is one
-- row of `task_results`.
alter table pgflow.jobs
    alter column run drop not null,                     -- null: a task
    add column args jsonb,                              -- of a task, by parameter name
    add column tags text[],
    add column metadata jsonb,
    add column enqueued_at timestamptz,
    add column unique_key text,                         -- at most one live task has it
    drop constraint jobs_kind_check,
    add constraint jobs_kind_check check (kind in ('execute', 'resume', 'advance', 'task')) not valid,
    add constraint jobs_run_check check ((run is null) = (kind = 'task')) not valid;

-- One row when a task ends, and never changed; `pgflow.retry_task` moves it back.
create table pgflow.task_results (
    id bigint primary key,                              -- of the job
    task text not null,
    queue text not null,
    status text not null check (status in ('completed', 'failed', 'cancelled')),
    priority smallint not null,
    attempt integer not null,
    max_attempts smallint not null,
    enqueued_at timestamptz,
    started_at timestamptz,                             -- of the last attempt; null: none ran to an outcome
    finished_at timestamptz not null default pgflow.now(),
    worker bigint,
    args jsonb,
    output jsonb,
    error jsonb,                                        -- {"reason", "type", "attempt", ...}
    errors jsonb,                                       -- the attempts that failed before
    tags text[],
    metadata jsonb,
    unique_key text,
    constraint task_results_output_limit check (octet_length(output::text) <= 67108864)
);

create index task_results_by_task on pgflow.task_results (task, id);
create index task_results_by_status on pgflow.task_results (status, id) where status <> 'completed';  -- the few among many
create index task_results_by_tag on pgflow.task_results using gin (tags) where tags is not null;
create index task_results_by_key on pgflow.task_results (unique_key, finished_at) where unique_key is not null;

-- What SQL needs to know of each task. An app stores the options of its own tasks.
create table pgflow.tasks (
    name text primary key,
    hash text not null,                                 -- of the options
    options jsonb not null,
    registered_at timestamptz not null default pgflow.now()
);
