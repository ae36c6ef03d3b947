-- What time it is there, beyond any doubt about the time zone. => seconds since 1970
select extract(epoch from clock_timestamp())::double precision
