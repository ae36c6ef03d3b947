-- Finds the replication slots that keep dead rows, oldest first. => name, active, age (transactions)
select s.slot_name::text, s.active, greatest(age(s.xmin), age(s.catalog_xmin)) as age
from pg_catalog.pg_replication_slots s
where s.xmin is not null or s.catalog_xmin is not null
order by age desc
limit 10
