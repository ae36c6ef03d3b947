-- Returns the delay before the next attempt. `dice`, a random number in [0, 1), shortens it by at most the share `jitter`, so it never exceeds `cap`.
create or replace function pgflow.backoff(
    kind text, base double precision, cap double precision, jitter double precision, attempt integer, dice double precision
) returns interval
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select make_interval(secs => (1 - jitter * dice) * least(cap, case kind
        when 'constant' then base
        when 'linear' then base * attempt
        else base * power(2, least(attempt, 32) - 1)
    end))
$$;
