-- Deletes idempotency keys older than an age, up to a limit. => how many
with old as materialized (
    select r.key from pgflow.requests r
    where r.made_at < pgflow.now() - make_interval(secs => %(age)s::double precision)
    order by r.made_at
    limit %(limit)s
    for update skip locked
),
gone as (
    delete from pgflow.requests r where r.key = any (array(select o.key from old o)) returning 1
)
select count(*) from gone
