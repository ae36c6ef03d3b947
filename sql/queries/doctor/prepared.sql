-- Finds the prepared transactions of this database that nobody has ended for so long, oldest first. => name, age (seconds)
select p.gid, extract(epoch from statement_timestamp() - p.prepared)::double precision as age
from pg_catalog.pg_prepared_xacts p
where p.database = current_database() and p.prepared < statement_timestamp() - make_interval(secs => %(age)s::double precision)
order by p.prepared
limit 10
