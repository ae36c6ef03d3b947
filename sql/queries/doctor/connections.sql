-- Counts the connections of the whole server. => usable, used
select
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0),
    -- Most roles do not see the backend type of other roles' sessions: count a session that has a database as a client.
    (select count(*) from pg_catalog.pg_stat_activity a where coalesce(a.backend_type = 'client backend', a.datid is not null))
