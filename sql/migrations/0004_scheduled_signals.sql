-- Signals that are to be sent later. A row goes when its time has come, when it is called off, or with its instance.
create table pgflow.scheduled_signals (
    id bigint generated always as identity primary key,
    run bigint not null,
    step text not null,
    name text not null,
    payload jsonb,
    due_at timestamptz not null
);

create index scheduled_signals_due on pgflow.scheduled_signals (due_at, id);
create index scheduled_signals_of_run on pgflow.scheduled_signals (run);
