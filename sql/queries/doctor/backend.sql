-- The process id of the server process behind this session. => pid
select pg_backend_pid()
