-- Counts the workers, and those whose lease has expired while they hold jobs. => alive, lost, lost_jobs
select
    count(*) filter (where pgflow.is_leased(w.lease_expires_at, w.lease)) as alive,
    count(*) filter (where not pgflow.is_leased(w.lease_expires_at, w.lease) and j.many > 0) as lost,
    coalesce(sum(j.many) filter (where not pgflow.is_leased(w.lease_expires_at, w.lease)), 0)::bigint as lost_jobs
from pgflow.workers w
left join lateral (
    select count(*) as many from (select from pgflow.jobs j where j.state = 'running' and j.worker = w.id limit 1001) r
    where not pgflow.is_leased(w.lease_expires_at, w.lease)
) j on true
