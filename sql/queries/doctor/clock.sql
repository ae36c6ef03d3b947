-- The server's time, independent of time zones. => seconds since 1970
select extract(epoch from clock_timestamp())::double precision
