-- Returns those of these tasks that are not live, and asks workers to notify of the end of tasks for the next `seconds`; `waiter` is an app's
-- own name. A task that ends while this runs may be missed: call it again.
create or replace function pgflow.await_tasks(waiter text, ids bigint[], seconds double precision default 5) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pgflow.waiters as w (id, expires_at) values (left(waiter, 100), pgflow.now() + make_interval(secs => seconds))
    on conflict (id) do update set expires_at = excluded.expires_at
    where w.expires_at < excluded.expires_at - make_interval(secs => seconds / 2);  -- not with each call
    delete from pgflow.waiters w
    where w.id = any (array(  -- of processes that have ended
        select e.id from pgflow.waiters e where e.expires_at < pgflow.now() - interval '1 minute' order by e.id limit 10 for update skip locked));
    return array(
        select g.id from unnest(ids) as g (id)
        where not exists (select from pgflow.jobs j where j.id = any (array[g.id]) and j.kind = 'task' offset 0));
end
$$;

-- Returns the channel on which the ids of ended tasks are sent, separated by commas, while an app waits.
create or replace function pgflow.ended_channel() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select pgflow.channel() || '_ended' $$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.await_tasks(text, bigint[], double precision) from public;
