-- Counts jobs that have been due for more than a minute and are not ready yet. => jobs (at most 1001), age (of the oldest, seconds)
select count(*), extract(epoch from pgflow.now() - nullif(min(o.run_at), '-infinity'))::double precision
from (
    select j.run_at
    from pgflow.jobs j
    where j.state in ('scheduled', 'parked') and j.run_at < pgflow.now() - interval '1 minute'
    order by j.run_at, j.id
    limit 1001
) o
