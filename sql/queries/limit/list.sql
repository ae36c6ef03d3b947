-- Lists limits, of all queues or of one; those of a key have a `key` and a `weight`. => queue, key, concurrency, key_concurrency, rate, burst, key_rate, key_burst, weight, used (places that are taken now, by jobs and by code), declared (the settings that the code has set)
select
    l.queue, l.key, l.concurrency, l.key_concurrency, l.rate, l.burst, l.key_rate, l.key_burst, l.weight,
    (
        select coalesce(sum(j.cost), 0) from pgflow.jobs j
        where j.state = 'running' and j.queue = l.queue and j.key is not null and j.key = coalesce(l.key, j.key)
    ) + (
        select coalesce(sum(p.cost), 0) from pgflow.places p
        where p.queue = l.queue and p.key = coalesce(l.key, p.key) and p.expires_at > pgflow.now()
    ) as used,
    l.declared
from (
    select
        q.name as queue, null::text as key, q.concurrency, q.key_concurrency, q.rate, q.burst, q.key_rate, q.key_burst, null::smallint as weight,
        array(select d from jsonb_object_keys(q.declared) d where d <> all (q.overridden) and d not in ('burst', 'key_burst') order by d) as declared
    from pgflow.queues q where q.is_limited
    union all
    select x.queue, x.key, x.concurrency, null, null, null, null, null, x.weight, '{}' from pgflow.limits x
) l
where %(queue)s::text is null or l.queue = %(queue)s::text
order by l.queue, l.key nulls first
