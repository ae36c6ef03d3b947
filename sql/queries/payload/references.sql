-- Reads the keys of the objects that a page of instances refers to. => keys, last (run of the page, null: last page)
with page as materialized (
    select i.run from pgflow.instances i where i.run > %(after)s order by i.run limit %(limit)s
)
select
    array(select p.reference ->> 'key' from pgflow.payload_references(array(select p.run from page p)) p) as keys,
    (select max(p.run) from page p having count(*) = %(limit)s) as last
