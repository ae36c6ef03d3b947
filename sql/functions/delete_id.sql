-- Deletes all runs of a business id with everything that belongs to them, also while they run; says how many there were.
-- Whoever holds one of their steps loses the right to record anything.
create or replace function pgflow.delete_id(id text, notify boolean default true) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    runs bigint[] := array(select i.run from pgflow.instances i where i.id = delete_id.id order by i.run for update);
begin
    -- Tokens before results: who holds a token may be about to add a result. Once the tokens are gone, nobody can.
    delete from pgflow.jobs j where j.run = any (runs);
    delete from pgflow.step_results r where r.run = any (runs);
    delete from pgflow.signals s where s.run = any (runs);
    delete from pgflow.scheduled_signals s where s.run = any (runs);
    delete from pgflow.instances i where i.run = any (runs);
    perform pgflow.answer(to_jsonb(cardinality(runs)));
    if notify and cardinality(runs) > 0 then
        perform pg_notify(pgflow.channel(), '');  -- no queue: whoever runs one of their steps looks whether it still may
    end if;
    return cardinality(runs);
end
$$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.delete_id(text, boolean) from public;
