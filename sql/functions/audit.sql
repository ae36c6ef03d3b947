-- Records an action of an operator in the caller's transaction, and returns the row's id. `who` is the session's user, with the name that
-- was given: the argument, else the transaction's setting pgflow_audit.who, which `pgflow.identify` sets.
create or replace function pgflow.audit(action text, details jsonb default '{}', who text default null) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    insert into pgflow.audit (who, action, details)
    select session_user || coalesce(' (' || left(n.name, 100) || ')', ''), audit.action, coalesce(audit.details, '{}')
    from (select nullif(coalesce(audit.who, current_setting('pgflow_audit.who', true)), '') as name) n
    returning id
$$;

-- Sets the name that audit rows of this transaction carry beside the session's user, such as that of a person who uses a shared role.
create or replace function pgflow.identify(who text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('pgflow_audit.who', coalesce(identify.who, ''), true);
end
$$;

-- Records an action if the transaction names a person (`pgflow.identify`): what people do is audited, what programs do all day is not.
create or replace function pgflow.audit_person(action text, details jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(current_setting('pgflow_audit.who', true), '') <> '' then
        perform pgflow.audit(audit_person.action, audit_person.details);
    end if;
end
$$;

-- Deletes audit rows older than an age, at most `limit`, and returns how many.
create or replace function pgflow.forget_audit(age interval, "limit" integer default 1000) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    deleted bigint;
begin
    if forget_audit."limit" < 1 then
        raise exception using errcode = 'PF008', message = format('limit must be at least 1, got %s', forget_audit."limit");
    end if;
    delete from pgflow.audit a where a.id = any (array(
        select o.id from pgflow.audit o where o.at < pgflow.now() - forget_audit.age order by o.at limit forget_audit."limit" for update skip locked));
    get diagnostics deleted = row_count;
    return deleted;
end
$$;

-- Not granted to PUBLIC. `audit` is called by other functions only; `identify` reads and writes no table.
revoke all on function pgflow.audit(text, jsonb, text) from public;
revoke all on function pgflow.audit_person(text, jsonb) from public;
revoke all on function pgflow.forget_audit(interval, integer) from public;
