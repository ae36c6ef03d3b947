-- The server's time, independent of time zones, and how far pgflow's clock is ahead of it: not at all, unless a test has replaced it. => time (seconds since 1970), ahead (seconds)
select
    extract(epoch from clock_timestamp())::double precision as time,
    extract(epoch from pgflow.now() - statement_timestamp())::double precision as ahead
