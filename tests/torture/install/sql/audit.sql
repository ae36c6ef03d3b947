-- For test installs only: records each change of the engine's tables, in the transaction that makes it.
create table pgflow.change_log (
    seq bigint generated always as identity primary key,  -- orders the changes of one row, because of the row lock
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

create function pgflow.record_change() returns trigger
language plpgsql
as $$
begin
    -- Without the columns that the checker does not read.
    insert into pgflow.change_log (relation, op, was, is_now)
    values (
        tg_table_name, lower(tg_op),
        case when tg_op <> 'INSERT' then to_jsonb(old) - coalesce(tg_argv::text[], '{}') end,
        case when tg_op <> 'DELETE' then to_jsonb(new) - coalesce(tg_argv::text[], '{}') end
    );
    return null;
end
$$;

create trigger recorded after insert or update or delete on pgflow.instances
for each row execute function pgflow.record_change('input', 'metadata', 'tags');
create trigger recorded after insert or update or delete on pgflow.step_results
for each row execute function pgflow.record_change('metadata');
create trigger recorded after insert or update or delete on pgflow.jobs
for each row execute function pgflow.record_change('config', 'awaits', 'errors', 'priority');
create trigger recorded after insert or update or delete on pgflow.task_results
for each row execute function pgflow.record_change('metadata', 'tags');
create trigger recorded after insert or update or delete on pgflow.signals
for each row execute function pgflow.record_change();
create trigger recorded after insert or update or delete on pgflow.scheduled_signals
for each row execute function pgflow.record_change();
create trigger recorded after insert or update on pgflow.schedules
for each row execute function pgflow.record_change('input');
create trigger recorded after insert or update or delete on pgflow.workers
for each row execute function pgflow.record_change('queues', 'node', 'version', 'nonce');
