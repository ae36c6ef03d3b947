-- The age of the oldest unfrozen row of this database, in transactions. => transactions, multixacts, freeze_at (autovacuum_freeze_max_age), multixact_freeze_at
select
    age(d.datfrozenxid), mxid_age(d.datminmxid),
    current_setting('autovacuum_freeze_max_age')::integer, current_setting('autovacuum_multixact_freeze_max_age')::integer
from pg_catalog.pg_database d
where d.datname = current_database()
