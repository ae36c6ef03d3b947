-- Which process of the server serves this session. => pid
select pg_backend_pid()
