-- Deletes all runs of a business id, of one workflow and version if named, with everything that belongs to them; returns their number.
-- Instances that are running are deleted, too: a worker that holds one of their steps can record nothing more.
-- Workflows may share a key: an id that has runs of several is refused (PF015) unless the workflow is named.
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
    -- The workflow that was found, not any: one that starts its first run with this id meanwhile is not meant.
    runs := array(
        select i.run from pgflow.instances i
        where i.id = delete_id.id and i.workflow = coalesce(delete_id.workflow, workflows[1])
            and (delete_id.version is null or i.version = delete_id.version)
        order by i.run for update);
    -- Jobs before results: a worker that holds a job may be about to add a result. Once the jobs are gone, none can.
    delete from pgflow.jobs j where j.run = any (runs);
    delete from pgflow.step_results r where r.run = any (runs);
    delete from pgflow.signals s where s.run = any (runs);
    delete from pgflow.scheduled_signals s where s.run = any (runs);
    delete from pgflow.instances i where i.run = any (runs);
    -- Against the lock order, so a row that is locked is skipped; prune removes it later.
    delete from pgflow.business_ids b
    where b.id in (
        select s.id from pgflow.business_ids s
        where s.id = delete_id.id and not exists (select from pgflow.instances i where i.id = delete_id.id)
            and (select true from pgflow.business_ids seen where seen.ctid = s.ctid)
        for update skip locked);
    perform pgflow.answer(to_jsonb(cardinality(runs)));
    if notify and cardinality(runs) > 0 then
        perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether the steps it runs are still wanted
    end if;
    return cardinality(runs);
end
$$;

-- Granted to no role by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.delete_id(text, boolean, text, integer) from public;
