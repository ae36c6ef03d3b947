-- Finds transactions of at least this age that keep dead rows from being removed, oldest first. => pid, application, state, age, query_age (seconds)
select
    a.pid, a.application_name, a.state,
    extract(epoch from statement_timestamp() - a.xact_start)::double precision as age,
    extract(epoch from statement_timestamp() - a.query_start)::double precision as query_age
from pg_catalog.pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid()
    and a.backend_type = 'client backend'
    and (a.backend_xmin is not null or a.backend_xid is not null or a.state in ('idle in transaction', 'idle in transaction (aborted)'))
    and a.xact_start < statement_timestamp() - make_interval(secs => %(age)s::double precision)
order by a.xact_start
limit 10
