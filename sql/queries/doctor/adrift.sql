-- Looks among the oldest active instances for ones without a token. => instances, first (run, null: none), whole (whether all active ones were looked at)
with page as materialized (
    select l.run, l.nth
    from unnest(array['pending', 'running', 'waiting']) s (status)
    cross join lateral (  -- one index range per status
        select i.run, row_number() over (order by i.run) as nth
        from (
            select i.run from pgflow.instances i where i.status = s.status and i.status <> 'completed' order by i.run limit %(limit)s
        ) i
    ) l
),
adrift as (  -- offset 0: a look into the index for each of them; a join would read all of jobs
    select p.run from page p where not exists (select from pgflow.jobs j where j.run = p.run offset 0)
)
select count(*), min(a.run), coalesce((select max(p.nth) < %(limit)s from page p), true) from adrift a
