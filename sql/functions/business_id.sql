-- Locks business ids, in sorted order, until the transaction ends. A later statement of the transaction sees every instance that an earlier
-- holder of the lock started. Under repeatable read a concurrent holder causes a serialization failure instead.
create or replace function pgflow.lock_business_ids(ids text[]) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into pgflow.business_ids (id) select distinct i from unnest(ids) i order by i
    on conflict (id) do update set id = excluded.id
$$;

-- Returns the newest active run that conflicts with an instance of this id and unique key (see instances.unique_key), null without one.
-- Between two scopes the wider one applies: global, workflow, version. An instance without a unique key conflicts with none.
create or replace function pgflow.excluding_run(id text, workflow text, unique_key text, run bigint default null) returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select max(i.run)
    from pgflow.instances i
    where i.id = excluding_run.id and i.status in ('pending', 'running', 'waiting') and i.run is distinct from excluding_run.run
        and (
            i.unique_key = excluding_run.unique_key
            or 'g' in (left(i.unique_key, 1), left(excluding_run.unique_key, 1))
            or (i.workflow = excluding_run.workflow and 'w' in (left(i.unique_key, 1), left(excluding_run.unique_key, 1)))
        )
        and i.unique_key is not null and excluding_run.unique_key is not null
$$;

-- Not granted to PUBLIC or to any role: called by other functions only.
revoke all on function pgflow.lock_business_ids(text[]) from public;
revoke all on function pgflow.excluding_run(text, text, text, bigint) from public;
