-- Deletes orphaned rows, whose instance was deleted in SQL, in a page of runs. => rows, last (run of the page, null: it was the last one)
-- Each table is read in the order of runs, up to the first run at which one of the pages ends. Runs whose jobs are locked by a worker are left to a later call.
with results as materialized (
    select r.run from pgflow.step_results r where r.run > %(after)s order by r.run limit %(limit)s
),
tokens as materialized (
    select j.run from pgflow.jobs j where j.run > %(after)s order by j.run limit %(limit)s
),
mail as materialized (
    select s.run from pgflow.signals s where s.run > %(after)s order by s.run limit %(limit)s
),
later as materialized (
    select s.run from pgflow.scheduled_signals s where s.run > %(after)s order by s.run limit %(limit)s
),
page as materialized (
    select min(p.last) filter (where p.rows >= %(limit)s) as last
    from (
        select count(*), max(run) from results
        union all select count(*), max(run) from tokens
        union all select count(*), max(run) from mail
        union all select count(*), max(run) from later
    ) p (rows, last)
),
orphaned as materialized (
    select f.run
    from (select run from results union select run from tokens union select run from mail union select run from later) f (run)
    where f.run <= coalesce((select p.last from page p), f.run)
        and not exists (select from pgflow.instances i where i.run = f.run offset 0)  -- offset 0: a look into the index for each
),
held as materialized (
    select j.id, j.run from pgflow.jobs j where j.run = any (array(select o.run from orphaned o)) order by j.id for update skip locked
),
busy as materialized (  -- by hashes: a page may be all orphans
    select j.id, j.run from pgflow.jobs j where j.run = any (array(select o.run from orphaned o))
    except select h.id, h.run from held h
),
free as materialized (
    select o.run from orphaned o where o.run not in (select b.run from busy b)
),
gone_tokens as (
    delete from pgflow.jobs j
    where j.id = any (array(select h.id from held h where h.run not in (select b.run from busy b))) returning 1
),
gone_results as (
    delete from pgflow.step_results r where r.run = any (array(select f.run from free f)) returning 1
),
gone_mail as (
    delete from pgflow.signals s where s.run = any (array(select f.run from free f)) returning 1
),
gone_later as (
    delete from pgflow.scheduled_signals s where s.run = any (array(select f.run from free f)) returning 1
)
select
    (select count(*) from gone_tokens) + (select count(*) from gone_results)
    + (select count(*) from gone_mail) + (select count(*) from gone_later) as rows,
    (select p.last from page p) as last
