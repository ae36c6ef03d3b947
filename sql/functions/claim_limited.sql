-- Returns how many more may start now under a rate: a bucket of `burst` tokens that is full again at `tat` (GCRA). Null: no rate.
create or replace function pgflow.allowed_starts(tat timestamptz, rate double precision, burst integer, moment timestamptz) returns integer
language sql immutable parallel safe
as $$
    select case when rate is not null then
        floor(burst - least(1e6, greatest(0, extract(epoch from greatest(tat, moment) - moment)::double precision * rate)) + 1e-6)::integer
    end
$$;

-- Claims jobs of a queue that has limits or partition keys, for the statement `job/claim`, which follows in the same transaction and returns them.
-- One claimer at a time: the queue's row is the gate, and a worker that finds it locked leaves at once. Each statement of a volatile function has
-- a snapshot of its own, so what is read behind the gate includes what every earlier claimer has committed. No counter is stored: the function
-- walks over the keys that have ready jobs, from where the last walk ended, counts the running jobs of each by an index, and takes the first jobs
-- of those with room. Jobs without a partition key are the key '*', to which no limit per key applies.
-- `hints`: keys of which this worker has settled jobs. They are tried when the walk ends after `max_keys` without finding enough.
-- answer: more (ask again at once) | done | full | busy (the gate is held: ask again in some ms) | paused | throttled.
-- seconds: when to ask again if nothing else happens before.
create or replace function pgflow.claim_limited(
    queue text, room integer, worker bigint, hints text[] default '{}', is_first boolean default true, max_keys integer default 500
) returns table (answer text, seconds double precision)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    gate pgflow.queues;
    moment constant timestamptz := pgflow.now();
    unlimited constant integer := 1000000;
    quota integer;              -- starts that the queue's rate allows
    budget integer;             -- free places of the queue
    wanted integer;
    share integer;
    has_plain boolean;
    is_cut boolean := false;    -- the walk ended after `max_keys`
    is_full boolean := false;   -- a key had no free place
    has_more boolean;
    found_key record;
    last_key text collate "C" := '';
    keys text[] := '{}';
    free_places integer[] := '{}';
    places integer[] := '{}';
    starts integer[] := '{}';
    weights integer[] := '{}';
    taken bigint[];
begin
    if is_first then
        perform set_config('pgflow_claim.ids', '', true);
    end if;
    loop
        select q.* into gate from pgflow.queues q where q.name = claim_limited.queue for no key update skip locked;
        exit when found or exists (select from pgflow.queues q where q.name = claim_limited.queue);
        insert into pgflow.queues (name) values (claim_limited.queue) on conflict (name) do nothing;  -- partition keys alone need no row
    end loop;
    if gate.name is null or gate.paused_at is not null then
        answer := case when gate.name is null then 'busy' else 'paused' end;
        return next;
        return;
    end if;

    if gate.limited_at > moment - interval '15 seconds' then  -- what runs already counts, too; a claim by the old rules may still be under way
        update pgflow.jobs j set key = '*' where j.id = any (array(
            select r.id from pgflow.jobs r
            where r.state = 'running' and r.queue || '' = claim_limited.queue and r.key is null order by r.worker for no key update skip locked));
    end if;
    quota := coalesce(pgflow.allowed_starts(gate.tat, gate.rate, gate.burst, moment), unlimited);
    budget := case when gate.concurrency is null then unlimited else
        gate.concurrency - (
            select coalesce(sum(least(j.cost, gate.concurrency)), 0) from pgflow.jobs j
            where j.state = 'running' and j.queue = claim_limited.queue and j.key is not null
        ) - (
            select coalesce(sum(least(p.cost, gate.concurrency)), 0) from pgflow.places p
            where p.queue = claim_limited.queue and p.expires_at > moment
        )
    end;
    if least(quota, budget) <= 0 then
        answer := case when quota <= 0 then 'throttled' else 'full' end;
        if quota <= 0 then
            seconds := extract(epoch from gate.tat - moment) - (gate.burst - 1) / gate.rate;
        end if;
        return next;
        return;
    end if;
    wanted := least(room, quota, budget);
    has_plain := exists (select from pgflow.jobs j where j.state = 'ready' and j.queue = claim_limited.queue and j.key is null);

    for pass in 1 .. 3 loop  -- from the cursor to the end; from the start to the cursor; the hints
        continue when pass = 2 and (gate.cursor = '' or is_cut) or pass = 3 and not is_cut;
        for found_key in
            with recursive walk (key, n) as (  -- one look into the index for each key, however many jobs it has
                select k.key, 1
                from (select least(
                    (
                        select j.key from pgflow.jobs j
                        where j.state = 'ready' and j.queue = claim_limited.queue and j.key > case pass when 1 then gate.cursor else '' end
                        order by j.queue, j.key limit 1
                    ),
                    case when has_plain and (pass = 2 or gate.cursor collate "C" < '*') then '*' end
                ) as key) k
                where pass < 3
                union all
                select least(
                    (
                        select j.key from pgflow.jobs j
                        where j.state = 'ready' and j.queue = claim_limited.queue and j.key > w.key order by j.queue, j.key limit 1
                    ),
                    case when has_plain and w.key < '*' then '*' end
                ), w.n + 1
                from walk w
                where w.key is not null and w.n < max_keys
            )
            select v.key, v.n, l.places, l.weight, l.places - u.used as free, a.starts, a.wait
            from (
                select w.key, w.n from walk w where w.key is not null
                union all select h.key, 0 from unnest(hints) as h (key) where pass = 3
            ) v
            cross join lateral (
                select
                    coalesce(max(o.concurrency), case when v.key <> '*' then gate.key_concurrency end) as places,
                    coalesce(max(o.weight), 1)::integer as weight
                from (select x.concurrency, x.weight from pgflow.limits x where x.queue = claim_limited.queue and x.key = v.key limit 1) o
            ) l
            cross join lateral (
                select case when l.places is not null then (
                    (
                        select coalesce(sum(least(j.cost, l.places)), 0) from pgflow.jobs j
                        where j.state = 'running' and j.queue = claim_limited.queue and j.key = v.key
                    ) + (
                        select coalesce(sum(least(p.cost, l.places)), 0) from pgflow.places p
                        where p.queue = claim_limited.queue and p.key = v.key and p.expires_at > moment
                    )
                )::integer end as used
            ) u
            cross join lateral (
                select
                    pgflow.allowed_starts(r.tat, gate.key_rate, gate.key_burst, moment) as starts,
                    extract(epoch from r.tat - moment)::double precision - (gate.key_burst - 1) / gate.key_rate as wait
                from (select (
                    select t.tat from pgflow.rates t
                    where t.queue = claim_limited.queue and t.key = v.key and gate.key_rate is not null and v.key <> '*' limit 1
                ) as tat) r
            ) a
        loop
            exit when pass = 2 and found_key.key collate "C" > gate.cursor;
            if pass < 3 then
                last_key := found_key.key;
                is_cut := found_key.n >= max_keys;
            end if;
            if found_key.free <= 0 then
                is_full := true;
            elsif found_key.key <> '*' and found_key.starts <= 0 then
                seconds := least(seconds, found_key.wait);
            elsif not found_key.key = any (keys) then
                keys := keys || found_key.key;
                free_places := free_places || coalesce(found_key.free, unlimited);
                places := places || coalesce(found_key.places, unlimited);
                starts := starts || case when found_key.key = '*' then unlimited else coalesce(found_key.starts, unlimited) end;
                weights := weights || found_key.weight;
            end if;
            exit when cardinality(keys) >= wanted;
        end loop;
        exit when cardinality(keys) >= wanted;
    end loop;
    is_cut := is_cut and cardinality(keys) < wanted;

    share := greatest(1, wanted / greatest(1, cardinality(keys)));
    with lane as materialized (
        select
            l.*, least(l.free, l.starts, share * l.weight, wanted) as most,
            share * l.weight < least(l.free, l.starts, wanted) as is_shared  -- its turn ends before its room does
        from unnest(keys, free_places, places, starts, weights) with ordinality as l (key, free, places, starts, weight, n)
    ),
    head as materialized (
        select l.n, l.key, l.places, l.is_shared and h.nth >= l.most as may_have_more, h.id, h.cost, h.nth
        from lane l
        cross join lateral (
            select
                j.id, j.cost, row_number() over o as nth,
                sum(least(j.cost, l.places)) over o as places_up_to, sum(least(j.cost, gate.key_burst)) over o as starts_up_to
            from (
                select x.* from (
                    select j.id, j.cost, j.priority, j.run_at from pgflow.jobs j
                    where j.state = 'ready' and j.queue = claim_limited.queue and j.key = l.key and j.crashes not between 2 and 4
                    order by j.priority, j.run_at, j.id limit l.most for no key update skip locked
                ) x
                union all
                select x.* from (
                    select j.id, j.cost, j.priority, j.run_at from pgflow.jobs j
                    where j.state = 'ready' and j.queue = claim_limited.queue and j.key is null and l.key = '*' and j.crashes not between 2 and 4
                    order by j.priority, j.run_at, j.id limit l.most for no key update skip locked
                ) x
            ) j
            window o as (order by j.priority, j.run_at, j.id)
        ) h
        where h.places_up_to <= l.free and (l.starts = unlimited or h.starts_up_to <= l.starts)
    ),
    quarantined as materialized (  -- possible poison job: one at a time, which the worker runs alone; the partial index on them is nearly empty
        select l.n, l.key, l.places, false as may_have_more, j.id, j.cost, 0::bigint as nth
        from pgflow.jobs j join lane l on l.key = coalesce(j.key, '*')
        where j.state = 'ready' and j.crashes between 2 and 4 and j.queue = claim_limited.queue
            and least(j.cost, l.places) <= l.free and (l.starts = unlimited or least(j.cost, gate.key_burst) <= l.starts)
        order by j.run_at, j.id
        limit 1
        for no key update of j skip locked
    ),
    candidate as (
        select * from head h where not exists (select from quarantined q where q.n = h.n)  -- the room of its key is checked for it alone
        union all select * from quarantined
    ),
    chosen as materialized (  -- within the queue's budget, one of each key after the other
        select f.id, f.key, f.cost
        from (
            select
                c.*, row_number() over o as place,
                sum(least(c.cost, gate.concurrency)) over o as places_up_to, sum(least(c.cost, gate.burst)) over o as starts_up_to
            from candidate c
            window o as (order by c.nth, c.n, c.id)
        ) f
        where f.places_up_to <= budget and (gate.rate is null or f.starts_up_to <= quota) and f.place <= room
    ),
    started as (
        update pgflow.jobs j
        set state = 'running', worker = claim_limited.worker, attempt = j.attempt + (j.kind in ('execute', 'task'))::integer, key = coalesce(j.key, '*')
        where j.id = any (array(select c.id from chosen c))
        returning j.id
    ),
    spent as (
        insert into pgflow.rates as t (queue, key, tat)
        select claim_limited.queue, c.key, moment + make_interval(secs => sum(least(c.cost, gate.key_burst)) / gate.key_rate)
        from chosen c
        where gate.key_rate is not null and c.key <> '*'
        group by c.key
        order by c.key
        on conflict (queue, key) do update set tat = greatest(t.tat, moment) + (excluded.tat - moment)
    ),
    turned as (
        update pgflow.queues q
        set cursor = case when cardinality(keys) >= wanted or is_cut then last_key else '' end,
            tat = case when gate.rate is null then q.tat else greatest(q.tat, moment)
                + make_interval(secs => (select coalesce(sum(least(c.cost, gate.burst)), 0) from chosen c) / gate.rate) end
        where q.name = claim_limited.queue and (gate.rate is not null or q.cursor is distinct from
            case when cardinality(keys) >= wanted or is_cut then last_key else '' end)
    )
    select
        coalesce(array_agg(s.id), '{}'),
        (select count(*) from chosen) > 0 and (
            (select count(*) from chosen) >= wanted or exists (select from head h where h.may_have_more))
    into taken, has_more
    from started s;
    perform set_config('pgflow_claim.ids', (coalesce(nullif(current_setting('pgflow_claim.ids', true), '')::bigint[], '{}') || taken)::text, true);
    answer := case
        when has_more or is_cut and cardinality(taken) > 0 then 'more'
        when seconds is not null or cardinality(taken) = 0 and cardinality(keys) > 0 and coalesce(gate.rate, gate.key_rate) is not null then 'throttled'
        when is_full or is_cut then 'full'
        else 'done'
    end;
    if answer = 'more' then
        seconds := null;
    elsif is_cut then
        seconds := least(seconds, 0.05);
    elsif answer = 'throttled' then
        seconds := coalesce(seconds, 1 / greatest(gate.rate, gate.key_rate));  -- a job that costs more than is allowed now
    end if;
    return next;
end
$$;

-- Not granted to PUBLIC: the workers of `pgflow roles` may call it.
revoke all on function pgflow.claim_limited(text, integer, bigint, text[], boolean, integer) from public;
