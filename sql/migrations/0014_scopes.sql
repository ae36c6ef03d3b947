-- What the uniqueness of a workflow rests on: its key and scope as columns, and rows to lock where scopes overlap.
-- Generated, so that definitions stored by an older release have them, too. The table holds a row per workflow version: rewriting it is quick.
alter table pgflow.definitions
    add column unique_key text generated always as (graph #>> '{unique,key}') stored,
    add column unique_scope text generated always as (graph #>> '{unique,scope}') stored;

-- One row per business id that instances of overlapping scopes have used. A start locks it before it looks for an active
-- instance of another scope: the unique index on instances compares instances of one scope only.
create table pgflow.business_ids (
    id text primary key
) with (fillfactor = 70);                                     -- locking a row updates it in place

-- Replaced by one that takes a workflow and a version, too.
drop function if exists pgflow.delete_id(text, boolean);
