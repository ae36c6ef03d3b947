-- Deletes the instances of a page that ended more than `age` seconds ago, with their results and signals. => instances, last (run of the page, null: all later ones are too young)
-- Pages follow the run, which is the order of creation, so no other index is needed. The last page is the one whose newest instance was created after the cutoff.
with page as materialized (
    select i.run, i.created_at
    from pgflow.instances i
    where i.run > %(after)s
    order by i.run
    limit %(limit)s
),
cutoff as materialized (
    select pgflow.now() - make_interval(secs => %(age)s::double precision) as at
),
old as materialized (  -- only a retry, a put or a delete could also lock an instance that has ended
    select i.run
    from pgflow.instances i
    where i.run = any (array(select p.run from page p))
        and i.finished_at < (select c.at from cutoff c) and i.status = any (%(statuses)s::text[])
    order by i.run
    for update skip locked
),
stale as (
    insert into pgflow.stale_payloads (workflow, instance, kind, name, reference)
    select p.workflow, p.instance, p.kind, p.name, p.reference from pgflow.payload_references(array(select o.run from old o)) p
),
results as (
    delete from pgflow.step_results r where r.run = any (array(select o.run from old o))
),
signals as (
    delete from pgflow.signals s where s.run = any (array(select o.run from old o))
),
scheduled as (
    delete from pgflow.scheduled_signals s where s.run = any (array(select o.run from old o))
),
spare as materialized (  -- ids without any other instance; skips one that a start has locked, or has used since our snapshot (its ctid has changed)
    select b.id
    from pgflow.business_ids b
    where b.id = any (array(select i.id from pgflow.instances i where i.run = any (array(select o.run from old o))))
        and not exists (select from pgflow.instances i where i.id = b.id and i.run <> all (array(select o.run from old o)))
        and (select true from pgflow.business_ids seen where seen.ctid = b.ctid)
    order by b.id
    for update skip locked
),
unused as (
    delete from pgflow.business_ids b where b.id = any (array(select s.id from spare s))
),
gone as (
    delete from pgflow.instances i where i.run = any (array(select o.run from old o)) returning 1
)
select
    (select count(*) from gone) as instances,
    (
        select max(p.run) from page p
        having count(*) = %(limit)s and max(p.created_at) < (select c.at from cutoff c)
    ) as last
