-- Reads the server's version and state. => version, number, standby, read_only, encoding
select
    current_setting('server_version'), current_setting('server_version_num')::integer, pg_is_in_recovery(),
    current_setting('default_transaction_read_only')::boolean, current_setting('server_encoding')
