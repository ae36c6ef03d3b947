-- Deletes rates whose bucket is full and places whose lease has expired, a page of each. => deleted
with rate as (
    delete from pgflow.rates r
    where r.ctid = any (array(
        select f.ctid from pgflow.rates f where f.tat < pgflow.now() - interval '1 minute' order by f.tat limit %(limit)s for update skip locked
    ))
    returning 1
),
place as (
    delete from pgflow.places p
    where p.id = any (array(
        select f.id from pgflow.places f where f.expires_at < pgflow.now() - interval '1 minute' order by f.expires_at limit %(limit)s for update skip locked
    ))
    returning 1
)
select (select count(*) from rate) + (select count(*) from place) as deleted
