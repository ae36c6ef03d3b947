-- Returns the newest run of a business value ("abc123") or of a whole business id ("orderid::abc123::1f09ab42"), of one version or (null) of any.
create or replace function pgflow.find(workflow text, value text, version integer) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    prefix text;
    found_run bigint;
begin
    select d.graph #>> '{unique,key}' into prefix
    from pgflow.definitions d where d.workflow = find.workflow order by d.current_since desc nulls last, d.version desc limit 1;
    if prefix is null then
        raise exception using errcode = 'PF001', message = format('no workflow named %L is registered here', find.workflow),
            hint = 'Start a worker with the app that defines it, or check the name.';
    end if;
    select i.run into found_run
    from pgflow.instances i
    where i.id = case when strpos(value, '::') > 0 then value else prefix || '::' || value end and i.workflow = find.workflow
        and (find.version is null or i.version = find.version)
    order by i.run desc limit 1;
    if found_run is null then
        raise exception using errcode = 'PF003', message = format('%s has no instance %L%s', find.workflow, value, ' of version ' || find.version),
            hint = format('List them: pgflow list %s', find.workflow);
    end if;
    return found_run;
end
$$;

create or replace function pgflow.find(workflow text, value text) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$ select pgflow.find(workflow, value, null) $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.find(text, text, integer) from public;
revoke all on function pgflow.find(text, text) from public;
