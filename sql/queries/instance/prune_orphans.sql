-- Deletes orphaned rows, whose instance was deleted in SQL, in a page of runs. => rows, last (run of the page, null: last page)
-- Reads each table in the order of runs, up to the lowest run at which one of the pages ends. Runs whose jobs a worker has locked are left to a later call.
with results as materialized (
    select r.run from pgflow.step_results r where r.run > %(after)s order by r.run limit %(limit)s
),
jobs as materialized (
    select j.run from pgflow.jobs j where j.run > %(after)s order by j.run limit %(limit)s
),
signals as materialized (
    select s.run from pgflow.signals s where s.run > %(after)s order by s.run limit %(limit)s
),
scheduled as materialized (
    select s.run from pgflow.scheduled_signals s where s.run > %(after)s order by s.run limit %(limit)s
),
page as materialized (
    select min(p.last) filter (where p.rows >= %(limit)s) as last
    from (
        select count(*), max(run) from results
        union all select count(*), max(run) from jobs
        union all select count(*), max(run) from signals
        union all select count(*), max(run) from scheduled
    ) p (rows, last)
),
orphaned as materialized (
    select f.run
    from (select run from results union select run from jobs union select run from signals union select run from scheduled) f (run)
    where f.run <= coalesce((select p.last from page p), f.run)
        and not exists (select from pgflow.instances i where i.run = f.run offset 0)  -- offset 0: an index lookup for each
),
held as materialized (
    select j.id, j.run from pgflow.jobs j where j.run = any (array(select o.run from orphaned o)) order by j.id for update skip locked
),
busy as materialized (  -- `except` hashes: every row of a page may be an orphan
    select j.id, j.run from pgflow.jobs j where j.run = any (array(select o.run from orphaned o))
    except select h.id, h.run from held h
),
free as materialized (
    select o.run from orphaned o where o.run not in (select b.run from busy b)
),
gone_jobs as (
    delete from pgflow.jobs j
    where j.id = any (array(select h.id from held h where h.run not in (select b.run from busy b))) returning 1
),
gone_results as (
    delete from pgflow.step_results r where r.run = any (array(select f.run from free f)) returning 1
),
gone_signals as (
    delete from pgflow.signals s where s.run = any (array(select f.run from free f)) returning 1
),
gone_scheduled as (
    delete from pgflow.scheduled_signals s where s.run = any (array(select f.run from free f)) returning 1
)
select
    (select count(*) from gone_jobs) + (select count(*) from gone_results)
    + (select count(*) from gone_signals) + (select count(*) from gone_scheduled) as rows,
    (select p.last from page p) as last
