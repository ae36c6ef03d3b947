-- Stores the settings of queues that an app declares in its code: objects with a `name`, and the settings of `pgflow.set_limit` and `scale_queue`.
-- What was set at run time stays in force until it is cleared. A declaration that has not changed takes no lock.
create or replace function pgflow.declare_queues(declared jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    given record;
    stored pgflow.queues;
begin
    for given in
        select e.value ->> 'name' as name, e.value - 'name' as settings
        from jsonb_array_elements(declare_queues.declared) e (value) order by 1
    loop
        perform from pgflow.queues q where q.name = given.name and q.declared = given.settings;
        continue when found;
        insert into pgflow.queues (name) values (given.name) on conflict (name) do nothing;
        select q.* into stored from pgflow.queues q where q.name = given.name for no key update;
        if stored.declared is null then  -- all that it has was set at run time
            update pgflow.queues q
            set overridden = array_remove(array[
                case when q.concurrency is not null then 'concurrency' end, case when q.key_concurrency is not null then 'key_concurrency' end,
                case when q.rate is not null then 'rate' end, case when q.key_rate is not null then 'key_rate' end,
                case when q.worker_concurrency is not null then 'worker_concurrency' end], null)
            where q.name = given.name;
        end if;
        update pgflow.queues q set declared = given.settings where q.name = given.name;
        perform pgflow.apply_declared(given.name);
        perform pg_notify(pgflow.channel(), '*');
        perform pg_notify(pgflow.channel(), given.name);  -- a higher limit has room
    end loop;
end
$$;

-- Puts the declared settings of a queue, whose row the caller has locked, in force where none was set at run time.
create or replace function pgflow.apply_declared(queue text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    with settings as (
        select
            case when 'concurrency' = any (q.overridden) then q.concurrency else (q.declared ->> 'concurrency')::integer end as concurrency,
            case when 'key_concurrency' = any (q.overridden) then q.key_concurrency else (q.declared ->> 'key_concurrency')::integer end as key_concurrency,
            case when 'rate' = any (q.overridden) then q.rate else (q.declared ->> 'rate')::double precision end as rate,
            case when 'rate' = any (q.overridden) then q.burst else coalesce((q.declared ->> 'burst')::integer, 1) end as burst,
            case when 'key_rate' = any (q.overridden) then q.key_rate else (q.declared ->> 'key_rate')::double precision end as key_rate,
            case when 'key_rate' = any (q.overridden) then q.key_burst else coalesce((q.declared ->> 'key_burst')::integer, 1) end as key_burst,
            case when 'worker_concurrency' = any (q.overridden) then q.worker_concurrency else (q.declared ->> 'worker_concurrency')::integer end
                as worker_concurrency,
            exists (select from pgflow.limits l where l.queue = q.name) as has_keys
        from pgflow.queues q where q.name = apply_declared.queue
    )
    update pgflow.queues q
    set concurrency = s.concurrency, key_concurrency = s.key_concurrency, rate = s.rate, burst = s.burst, key_rate = s.key_rate, key_burst = s.key_burst,
        worker_concurrency = s.worker_concurrency,
        is_limited = s.has_keys or num_nonnulls(s.concurrency, s.key_concurrency, s.rate, s.key_rate) > 0,
        limited_at = case when q.is_limited then q.limited_at else pgflow.now() end
    from settings s
    where q.name = apply_declared.queue
$$;

-- Not granted to PUBLIC: workers declare the queues of their apps.
revoke all on function pgflow.declare_queues(jsonb) from public;
revoke all on function pgflow.apply_declared(text) from public;
