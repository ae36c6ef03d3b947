-- Releases the jobs that this worker holds in the database but not in memory: the reply to a claim was lost. => queues, jobs
with stray as materialized (
    select j.id
    from pgflow.jobs j
    where j.state = 'running' and j.worker = %(worker)s::bigint and j.id <> all (%(held)b::bigint[])
    order by j.id + 0  -- an expression, so that no index over all jobs offers this order
    for no key update of j skip locked
),
freed as (
    update pgflow.jobs j
    set state = 'ready', worker = null, key = nullif(j.key, '*'), run_at = pgflow.now(), attempt = j.attempt - (j.kind in ('execute', 'task'))::integer
    where j.id = any (array(select s.id from stray s))
    returning j.queue
)
select coalesce(array_agg(distinct f.queue), '{}') as queues, count(*) as jobs from freed f
