-- Calls that can be sent again without being carried out twice: a row for each idempotency key, for as long as it is remembered.
create table pgflow.requests (
    key text primary key check (length(key) between 1 and 200),
    call text,                                                -- what it was used for; null: a transaction of SQL's own
    answer jsonb,                                             -- what each call in the transaction came to, in order
    xact xid8 not null default pg_current_xact_id(),          -- which transaction may still add to it
    made_at timestamptz not null default pgflow.now()
) with (fillfactor = 70);                                     -- the answer is written over the row

create index requests_by_age on pgflow.requests (made_at);
