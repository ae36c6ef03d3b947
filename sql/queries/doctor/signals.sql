-- Counts scheduled signals that have been due for more than a minute. => signals (at most 1001), age (of the oldest, seconds)
select count(*), extract(epoch from pgflow.now() - nullif(min(o.due_at), '-infinity'))::double precision
from (
    select s.due_at
    from pgflow.scheduled_signals s
    where s.due_at < pgflow.now() - interval '1 minute'
    order by s.due_at, s.id
    limit 1001
) o
