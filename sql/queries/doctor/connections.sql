-- Counts the connections of the whole server. => usable, used
select
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', true)::integer, 0),
    -- The kind of other people's sessions is hidden from most roles; what has a database and no kind is taken for a client.
    (select count(*) from pg_catalog.pg_stat_activity a where coalesce(a.backend_type = 'client backend', a.datid is not null))
