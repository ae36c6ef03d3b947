-- Lists workers, the newest first, at most 1,000. => id, node, pid, version, queues, started_at, lease_expires_at, is_alive, running (jobs that it holds, at most 10001)
select
    w.id, w.node, w.pid, w.version, w.queues, w.started_at, case when isfinite(w.lease_expires_at) then w.lease_expires_at end as lease_expires_at,
    pgflow.is_leased(w.lease_expires_at, w.lease) as is_alive,
    (select count(*) from (select from pgflow.jobs j where j.state = 'running' and j.worker = w.id order by j.worker limit 10001) r) as running
from pgflow.workers w
where %(only_alive)s::boolean is not true or pgflow.is_leased(w.lease_expires_at, w.lease)
order by w.id desc
limit 1000
