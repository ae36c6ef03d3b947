-- The process id of this session's server process. => pid
select pg_backend_pid()
