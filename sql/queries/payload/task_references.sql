-- Reads the keys of the objects that a page of tasks refers to, live and ended. => keys, last (id of the page, null: last page)
with page as materialized (
    select p.id
    from (
        (select j.id from pgflow.jobs j where j.kind = 'task' and j.id > %(after)s order by j.id limit %(limit)s)
        union  -- a task that ends or is retried keeps its id
        (select r.id from pgflow.task_results r where r.id > %(after)s order by r.id limit %(limit)s)
    ) p
    order by p.id
    limit %(limit)s
)
select
    array(select t.reference ->> 'key' from pgflow.task_references(array(select p.id from page p)) t) as keys,
    (select max(p.id) from page p having count(*) = %(limit)s) as last
