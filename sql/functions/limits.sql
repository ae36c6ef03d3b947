-- Sets limits of a queue, or (`key`) the exceptions of one partition key. Null leaves a limit as it is. It waits for the gate, some milliseconds, and
-- holds it until the transaction ends, so no claim goes on by the old limits: call it in a transaction of its own.
-- `is_new` allows a name that no queue has, for a limit that code takes places of.
create or replace function pgflow.set_limit(
    queue text, concurrency integer default null, key_concurrency integer default null, rate double precision default null, burst integer default null,
    key_rate double precision default null, key_burst integer default null, key text default null, weight integer default null, is_new boolean default false
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    bad record;
    given text[] := array_remove(array[
        case when concurrency is not null then 'concurrency' end, case when key_concurrency is not null then 'key_concurrency' end,
        case when rate is not null or burst is not null then 'rate' end, case when key_rate is not null or key_burst is not null then 'key_rate' end], null);
begin
    select f.name, f.value, f.most into bad
    from (values
        ('concurrency', concurrency, 1000000), ('key_concurrency', key_concurrency, 1000000), ('burst', burst, 1000000),
        ('key_burst', key_burst, 1000000), ('weight', weight, 32767)
    ) as f (name, value, most)
    where f.value not between 1 and f.most limit 1;
    if found then
        raise exception using errcode = 'PF008',
            message = format('queue %s: %s must be between 1 and %s, got %s', set_limit.queue, bad.name, bad.most, bad.value),
            hint = 'To run nothing, pause the queue.';
    end if;
    select f.name, f.value into bad from (values ('rate', rate), ('key_rate', key_rate)) as f (name, value)
    where not (f.value > 0 and f.value <= 1000000) limit 1;
    if found then
        raise exception using errcode = 'PF008',
            message = format('queue %s: %s must be above 0 and at most 1000000 per second, got %s', set_limit.queue, bad.name, bad.value),
            hint = 'To run nothing, pause the queue.';
    end if;
    if num_nulls(concurrency, key_concurrency, rate, burst, key_rate, key_burst, weight) = 7 then
        raise exception using errcode = 'PF008', message = format('queue %s: no limit given', set_limit.queue),
            hint = 'Give a concurrency, a key_concurrency, a rate or a key_rate.';
    end if;
    if key is null and weight is not null or key is not null and num_nonnulls(key_concurrency, rate, burst, key_rate, key_burst) > 0 then
        raise exception using errcode = 'PF008', message = format('queue %s: a key has a concurrency and a weight of its own, and nothing else', set_limit.queue),
            hint = 'Leave the key out for limits of the queue; a weight needs a key.';
    end if;
    if key = '' or key = '*' or octet_length(key) > 1000 then
        raise exception using errcode = 'PF008', message = format('queue %s: %L is not a partition key', set_limit.queue, key),
            hint = 'A key has 1 to 1000 bytes; "*" is reserved.';
    end if;
    if not is_new then
        perform pgflow.require_queue(set_limit.queue);
    end if;
    select t.name, (t.options ->> 'weight')::integer as weight into bad
    from pgflow.tasks t
    where key is null and coalesce(t.options ->> 'queue', 'default') = set_limit.queue and (t.options ->> 'weight')::integer > concurrency
    order by 2 desc, 1 limit 1;
    if found then
        raise exception using errcode = 'PF008',
            message = format('queue %s: concurrency must be at least %s, the weight of the task %s, got %s', set_limit.queue, bad.weight, bad.name, concurrency),
            hint = 'Give a higher concurrency, or the task a lower weight or another queue.';
    end if;
    insert into pgflow.queues (name) values (set_limit.queue) on conflict (name) do nothing;
    if key is null then
        update pgflow.queues q
        set is_limited = true, limited_at = case when q.is_limited then q.limited_at else pgflow.now() end,
            concurrency = coalesce(set_limit.concurrency, q.concurrency), key_concurrency = coalesce(set_limit.key_concurrency, q.key_concurrency),
            rate = coalesce(set_limit.rate, q.rate), burst = coalesce(set_limit.burst, q.burst),
            key_rate = coalesce(set_limit.key_rate, q.key_rate), key_burst = coalesce(set_limit.key_burst, q.key_burst),
            overridden = array(select distinct o from unnest(q.overridden || given) o order by o)
        where q.name = set_limit.queue;
    else
        update pgflow.queues q set is_limited = true, limited_at = pgflow.now() where q.name = set_limit.queue and not q.is_limited;
        insert into pgflow.limits as l (queue, key, concurrency, weight)
        values (set_limit.queue, set_limit.key, set_limit.concurrency, coalesce(set_limit.weight, 1))
        on conflict (queue, key) do update
        set concurrency = coalesce(excluded.concurrency, l.concurrency), weight = coalesce(set_limit.weight, l.weight);
    end if;
    perform pgflow.audit('set limit', jsonb_strip_nulls(jsonb_build_object(
        'queue', set_limit.queue, 'key', set_limit.key, 'concurrency', set_limit.concurrency, 'key_concurrency', set_limit.key_concurrency,
        'rate', set_limit.rate, 'burst', set_limit.burst, 'key_rate', set_limit.key_rate, 'key_burst', set_limit.key_burst, 'weight', set_limit.weight)));
    perform pg_notify(pgflow.channel(), '*');
    perform pg_notify(pgflow.channel(), set_limit.queue);  -- a higher limit has room
end
$$;

-- Removes all limits of a queue that were set at run time, those of its keys included, or those of one partition key. Then the limits hold that the
-- code declares, if it declares some. Returns whether there were any.
create or replace function pgflow.clear_limit(queue text, key text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    had_limits boolean;
begin
    perform pgflow.require_queue(clear_limit.queue);
    perform from pgflow.queues q where q.name = clear_limit.queue for no key update;
    if key is not null then
        delete from pgflow.limits l where l.queue = clear_limit.queue and l.key = clear_limit.key;
        had_limits := found;
    else
        delete from pgflow.limits l where l.queue = clear_limit.queue;
        had_limits := found;
        update pgflow.queues q
        set overridden = array(select o from unnest(q.overridden) o where o = 'worker_concurrency'), tat = '-infinity'
        where q.name = clear_limit.queue and q.is_limited
            and (q.declared is null or q.overridden && array['concurrency', 'key_concurrency', 'rate', 'key_rate']);
        had_limits := had_limits or found;
        perform pgflow.apply_declared(clear_limit.queue);
        delete from pgflow.rates r where r.queue = clear_limit.queue;
    end if;
    if had_limits then
        perform pgflow.audit('clear limit', jsonb_strip_nulls(jsonb_build_object('queue', clear_limit.queue, 'key', clear_limit.key)));
    end if;
    perform pg_notify(pgflow.channel(), '*');
    perform pg_notify(pgflow.channel(), clear_limit.queue);
    return had_limits;
end
$$;

-- Takes a place of a limit for code that runs outside of jobs, until `release_place` or the end of its lease. Waits for the gate, some milliseconds.
-- => place (null: there is none now), seconds (until it is worth asking again; null: when a place is released)
create or replace function pgflow.take_place(
    queue text, key text default null, cost integer default 1, lease interval default '30 seconds', holder text default null
) returns table (place bigint, seconds double precision)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    gate pgflow.queues;
    own text := coalesce(nullif(take_place.key, ''), '*');
    most integer;
    moment timestamptz;
    key_tat timestamptz;
begin
    select q.* into gate from pgflow.queues q where q.name = take_place.queue for no key update;
    if not found or not gate.is_limited then
        raise exception using errcode = 'PF020', message = format('there is no limit for %L', take_place.queue),
            hint = coalesce('Limits: ' || nullif((select string_agg(q.name, ', ' order by q.name) from pgflow.queues q where q.is_limited), '') || '.',
                'Set one: pgflow limit set NAME --concurrency 5 --new');
    end if;
    moment := pgflow.now();
    most := coalesce(
        (select l.concurrency from pgflow.limits l where l.queue = take_place.queue and l.key = own),
        case when own <> '*' then gate.key_concurrency end);
    if cost < 1 or cost > least(gate.concurrency, most, 32767, case when gate.rate is not null then gate.burst end,
        case when gate.key_rate is not null and own <> '*' then gate.key_burst end) then
        raise exception using errcode = 'PF008', message = format('limit %s: cost must be between 1 and %s, got %s', take_place.queue,
            least(gate.concurrency, most, 32767, case when gate.rate is not null then gate.burst end,
                case when gate.key_rate is not null and own <> '*' then gate.key_burst end), cost),
            hint = 'A higher cost than the limit would never be free.';
    end if;
    delete from pgflow.places p where p.queue = take_place.queue and p.key = own and p.expires_at <= moment;
    if gate.paused_at is not null
        or gate.concurrency is not null and cost > gate.concurrency - (
            select coalesce(sum(least(j.cost, gate.concurrency)), 0) from pgflow.jobs j
            where j.state = 'running' and j.queue = take_place.queue and j.key is not null
        ) - (
            select coalesce(sum(least(p.cost, gate.concurrency)), 0) from pgflow.places p where p.queue = take_place.queue and p.expires_at > moment
        )
        or most is not null and cost > most - (
            select coalesce(sum(least(j.cost, most)), 0) from pgflow.jobs j
            where j.state = 'running' and j.queue = take_place.queue and j.key = own
        ) - (
            select coalesce(sum(least(p.cost, most)), 0) from pgflow.places p where p.queue = take_place.queue and p.key = own and p.expires_at > moment
        ) then
        return next;
        return;
    end if;
    key_tat := case when gate.key_rate is not null and own <> '*' then (select r.tat from pgflow.rates r where r.queue = take_place.queue and r.key = own) end;
    seconds := greatest(
        case when cost > pgflow.allowed_starts(gate.tat, gate.rate, gate.burst, moment)
            then extract(epoch from gate.tat - moment) - (gate.burst - cost) / gate.rate end,
        case when own <> '*' and cost > pgflow.allowed_starts(key_tat, gate.key_rate, gate.key_burst, moment)
            then extract(epoch from key_tat - moment) - (gate.key_burst - cost) / gate.key_rate end);
    if seconds is not null then
        return next;
        return;
    end if;
    if gate.rate is not null then
        update pgflow.queues q set tat = greatest(q.tat, moment) + make_interval(secs => cost / gate.rate) where q.name = take_place.queue;
    end if;
    if gate.key_rate is not null and own <> '*' then
        insert into pgflow.rates as t (queue, key, tat) values (take_place.queue, own, moment + make_interval(secs => cost / gate.key_rate))
        on conflict (queue, key) do update set tat = greatest(t.tat, moment) + (excluded.tat - moment);
    end if;
    insert into pgflow.places (queue, key, cost, holder, expires_at)
    values (take_place.queue, own, cost, take_place.holder, moment + take_place.lease)
    returning id into place;
    return next;
end
$$;

-- Renews the leases of places that have not expired. => the places that are still held
create or replace function pgflow.renew_places(places bigint[], lease interval default '30 seconds') returns setof bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    update pgflow.places p set expires_at = pgflow.now() + renew_places.lease
    where p.id = any (renew_places.places) and p.expires_at > pgflow.now()
    returning p.id
$$;

-- Gives a place back, and wakes the workers of the queue. Returns whether it was still held.
create or replace function pgflow.release_place(place bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    gone record;
begin
    delete from pgflow.places p where p.id = release_place.place returning p.queue, p.expires_at > pgflow.now() as was_held into gone;
    if found then
        perform pg_notify(pgflow.channel(), gone.queue);
    end if;
    return coalesce(gone.was_held, false);
end
$$;

-- Not granted to PUBLIC. A client of `pgflow roles` may take places, not change limits.
revoke all on function pgflow.set_limit(
    text, integer, integer, double precision, integer, double precision, integer, text, integer, boolean
) from public;
revoke all on function pgflow.clear_limit(text, text) from public;
revoke all on function pgflow.take_place(text, text, integer, interval, text) from public;
revoke all on function pgflow.renew_places(bigint[], interval) from public;
revoke all on function pgflow.release_place(bigint) from public;
