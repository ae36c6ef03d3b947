-- Finds this database's prepared transactions of at least this age, oldest first. => name, age (seconds)
select p.gid, extract(epoch from statement_timestamp() - p.prepared)::double precision as age
from pg_catalog.pg_prepared_xacts p
where p.database = current_database() and p.prepared < statement_timestamp() - make_interval(secs => %(age)s::double precision)
order by p.prepared
limit 10
