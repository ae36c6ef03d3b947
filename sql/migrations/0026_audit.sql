-- Who did what: one row for each action of an operator. A bulk operation keeps its position and its counts in `details`, so it can be resumed.
create table pgflow.audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default pgflow.now(),
    who text not null,                                   -- the session's user, and the name that the caller gave
    action text not null check (length(action) between 1 and 100),
    details jsonb not null default '{}'
) with (fillfactor = 70);                                -- a bulk operation updates its row in place, batch by batch

create index audit_by_time on pgflow.audit (at);
