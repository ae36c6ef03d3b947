-- Ends an active instance: its tokens and timers go, a step that runs now loses the right to record anything, later signals are refused.
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
        raise exception using errcode = 'PF005', message = format('%s %L is %s already and cannot be cancelled', instance.workflow, instance.id, instance.status),
            hint = 'Nothing is left to stop.';
    end if;
    update pgflow.instances i
    set status = 'cancelled', revision = i.revision + 1, finished_at = pgflow.now(),
        error = case when cancel_run.reason is not null then jsonb_build_object('reason', cancel_run.reason) end
    where i.run = cancel_run.run;
    delete from pgflow.jobs j where j.run = cancel_run.run;
    delete from pgflow.scheduled_signals s where s.run = cancel_run.run;
    perform pgflow.answer(null);
    if notify then
        perform pg_notify(pgflow.channel(), '');  -- no queue: whoever runs one of its steps looks whether it still may
    end if;
end
$$;

create or replace function pgflow.cancel(workflow text, value text, reason text default null, notify boolean default true) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.cancel_run(pgflow.find(workflow, value), reason, notify) $$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.cancel_run(bigint, text, boolean) from public;
revoke all on function pgflow.cancel(text, text, text, boolean) from public;
