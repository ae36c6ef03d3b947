-- Ends an active instance, which the caller has locked, as failed or cancelled. Its jobs are deleted, so that the results of its steps in flight are
-- fenced off. A failed one keeps its scheduled signals for a retry.
drop function if exists pgflow.end_instance(bigint, text, jsonb);
create or replace function pgflow.end_instance(run bigint, status text, error jsonb, notify boolean default true) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update pgflow.instances i
    set status = end_instance.status, revision = i.revision + 1, finished_at = pgflow.now(), error = end_instance.error
    where i.run = end_instance.run;
    delete from pgflow.jobs j where j.run = end_instance.run;
    if end_instance.status = 'cancelled' then
        delete from pgflow.scheduled_signals s where s.run = end_instance.run;
    end if;
    perform pgflow.instance_hook(end_instance.run, end_instance.status, end_instance.error, end_instance.notify);
end
$$;

-- Not granted to PUBLIC or to any role: called by other functions only.
revoke all on function pgflow.end_instance(bigint, text, jsonb, boolean) from public;
