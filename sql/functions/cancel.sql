-- Cancels an active instance: deletes its jobs and scheduled signals. The result of a step in flight is fenced off, later signals are rejected.
create or replace function pgflow.cancel_run(run bigint, reason text default null, notify boolean default true) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    instance record;
begin
    select i.id, i.workflow, i.status into instance from pgflow.instances i where i.run = cancel_run.run for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no instance with run %s', cancel_run.run), hint = 'List them: pgflow list';
    end if;
    if instance.status not in ('pending', 'running', 'waiting') then
        raise exception using errcode = 'PF005', message = format('%s %L is %s: it cannot be cancelled', instance.workflow, instance.id, instance.status),
            hint = 'Only an active instance can be cancelled.';
    end if;
    perform pgflow.end_instance(
        cancel_run.run, 'cancelled', case when cancel_run.reason is not null then jsonb_build_object('reason', cancel_run.reason) end,
        cancel_run.notify);
    perform pgflow.audit('cancel', jsonb_build_object('run', cancel_run.run, 'id', instance.id, 'workflow', instance.workflow, 'reason', cancel_run.reason));
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
end
$$;

create or replace function pgflow.cancel(workflow text, value text, reason text default null, notify boolean default true) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.cancel_run(pgflow.find(workflow, value), reason, notify) $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.cancel_run(bigint, text, boolean) from public;
revoke all on function pgflow.cancel(text, text, text, boolean) from public;
