-- Finds orphaned rows among the oldest rows, the newest rows and a random sample of each table. => table, runs, first (run); a row for each table that has some
-- The sample is of blocks, at most limit / 100 of each table, so the time does not grow with the tables.
with size as materialized (
    select
        c.relname,
        100 * least(1, %(limit)s / 100.0 / greatest(pg_relation_size(c.oid) / current_setting('block_size')::integer, 1))::real as percent
    from pg_catalog.pg_class c
    where c.oid = any (array[
        'pgflow.step_results'::regclass, 'pgflow.jobs'::regclass, 'pgflow.signals'::regclass, 'pgflow.scheduled_signals'::regclass])
),
sampled as materialized (
    select 'step_results' as name, r.run from (select r.run from pgflow.step_results r order by r.run limit %(limit)s) r
    union select 'step_results', r.run from (select r.run from pgflow.step_results r order by r.run desc limit %(limit)s) r
    union select 'step_results', r.run from pgflow.step_results r tablesample system ((select s.percent from size s where s.relname = 'step_results'))
    union select 'jobs', j.run from (select j.run from pgflow.jobs j where j.run is not null order by j.run limit %(limit)s) j
    union select 'jobs', j.run from (select j.run from pgflow.jobs j where j.run is not null order by j.run desc limit %(limit)s) j
    union select 'jobs', j.run from pgflow.jobs j tablesample system ((select s.percent from size s where s.relname = 'jobs')) where j.run is not null
    union select 'signals', s.run from (select s.run from pgflow.signals s order by s.run limit %(limit)s) s
    union select 'signals', s.run from (select s.run from pgflow.signals s order by s.run desc limit %(limit)s) s
    union select 'signals', g.run from pgflow.signals g tablesample system ((select s.percent from size s where s.relname = 'signals'))
    union select 'scheduled_signals', s.run from (select s.run from pgflow.scheduled_signals s order by s.run limit %(limit)s) s
    union select 'scheduled_signals', s.run from (select s.run from pgflow.scheduled_signals s order by s.run desc limit %(limit)s) s
    union select 'scheduled_signals', g.run
    from pgflow.scheduled_signals g tablesample system ((select s.percent from size s where s.relname = 'scheduled_signals'))
)
select l.name, count(*), min(l.run)
from sampled l
where not exists (select from pgflow.instances i where i.run = l.run offset 0)  -- offset 0: one index probe per run
group by l.name
order by l.name
