-- References of deleted rows to a payload store. Workers whose app has the store delete the objects, and then these rows.
create table pgflow.stale_payloads (
    id bigint generated always as identity primary key,
    workflow text not null,
    instance text not null,  -- the business id
    kind text not null check (kind in ('input', 'output', 'payload')),
    name text not null,
    reference jsonb not null,
    created_at timestamptz not null default pgflow.now()
);
