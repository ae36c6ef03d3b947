-- For test installs only: notes each committed change of the engine's tables, in the transaction that makes it. Its being there says that this is one.
create table pgflow.audit (
    seq bigint generated always as identity primary key,  -- of one row's changes the order in which they came about: the row's lock sees to that
    xact xid8 not null default pg_current_xact_id(),
    at timestamptz not null default clock_timestamp(),
    moment timestamptz not null default pgflow.now(),     -- the engine's clock, which a test may move
    who text not null default current_setting('application_name'),
    backend integer not null default pg_backend_pid(),
    relation text not null,
    op text not null,
    was jsonb,
    is_now jsonb
);

create function pgflow.note_change() returns trigger
language plpgsql
as $$
begin
    -- What nobody looks at stays away: for the jobs it is the policy of queues, for the others what users have put in.
    insert into pgflow.audit (relation, op, was, is_now)
    values (
        tg_table_name, lower(tg_op),
        case when tg_op <> 'INSERT' then to_jsonb(old) - coalesce(tg_argv::text[], '{}') end,
        case when tg_op <> 'DELETE' then to_jsonb(new) - coalesce(tg_argv::text[], '{}') end
    );
    return null;
end
$$;

create trigger noted after insert or update or delete on pgflow.instances
for each row execute function pgflow.note_change('input', 'metadata', 'tags');
create trigger noted after insert or update or delete on pgflow.step_results
for each row execute function pgflow.note_change('metadata');
create trigger noted after insert or update or delete on pgflow.jobs
for each row execute function pgflow.note_change('config', 'awaits', 'errors', 'priority');
create trigger noted after insert or update or delete on pgflow.signals
for each row execute function pgflow.note_change();
create trigger noted after insert or update or delete on pgflow.scheduled_signals
for each row execute function pgflow.note_change();
create trigger noted after insert or update or delete on pgflow.workers
for each row execute function pgflow.note_change('queues', 'node', 'version', 'nonce');
