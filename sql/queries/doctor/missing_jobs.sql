-- Finds active instances without a job among the oldest ones. => instances, first (run, null: none), is_complete (whether all active instances were examined)
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
jobless as (  -- offset 0: one index probe per instance; a join would read all of jobs
    select p.run from page p where not exists (select from pgflow.jobs j where j.run = p.run offset 0)
)
select count(*), min(a.run), coalesce((select max(p.nth) < %(limit)s from page p), true) from jobless a
