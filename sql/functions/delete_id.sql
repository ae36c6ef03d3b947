-- Deletes all runs of a business id, of one workflow and version if given, with their jobs, results and signals; returns how many runs.
-- Active instances are deleted, too: the results of their steps in flight are fenced off.
-- Workflows may share a key: raises PF015 for an id with runs of several workflows unless one is given.
create or replace function pgflow.delete_id(
    id text, notify boolean default true, workflow text default null, version integer default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    workflows text[];
    runs bigint[];
begin
    if delete_id.workflow is null then
        workflows := array(select distinct i.workflow from pgflow.instances i where i.id = delete_id.id order by i.workflow);
        if cardinality(workflows) > 1 then
            raise exception using errcode = 'PF015', message = format('%L has runs of several workflows', delete_id.id),
                hint = format('Name one of them: %s.', array_to_string(workflows, ', '));
        end if;
    end if;
    -- Restricted to the workflow found above: another one may start its first run with this id concurrently.
    runs := array(
        select i.run from pgflow.instances i
        where i.id = delete_id.id and i.workflow = coalesce(delete_id.workflow, workflows[1])
            and (delete_id.version is null or i.version = delete_id.version)
        order by i.run for update);
    -- Jobs before results: a worker with a claimed job may be about to add a result, and cannot once the job is deleted.
    delete from pgflow.jobs j where j.run = any (runs);
    insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)
    select p.workflow, p.instance, p.kind, p.name, p.reference from pgflow.payload_references(runs) p;
    delete from pgflow.step_results r where r.run = any (runs);
    delete from pgflow.signals s where s.run = any (runs);
    delete from pgflow.scheduled_signals s where s.run = any (runs);
    delete from pgflow.instances i where i.run = any (runs);
    -- Against the lock order, so locked rows are skipped; prune deletes them later.
    delete from pgflow.business_ids b
    where b.id in (
        select s.id from pgflow.business_ids s
        where s.id = delete_id.id and not exists (select from pgflow.instances i where i.id = delete_id.id)
            and (select true from pgflow.business_ids seen where seen.ctid = s.ctid)
        for update skip locked);
    if cardinality(runs) > 0 then
        perform pgflow.audit('delete', jsonb_build_object('id', delete_id.id, 'workflow', coalesce(delete_id.workflow, workflows[1]), 'count', cardinality(runs)));
    end if;
    perform pgflow.answer(to_jsonb(cardinality(runs)));
    if notify and cardinality(runs) > 0 then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
    end if;
    return cardinality(runs);
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.delete_id(text, boolean, text, integer) from public;
