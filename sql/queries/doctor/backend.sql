-- Which process of the server answers. => pid
select pg_backend_pid()
