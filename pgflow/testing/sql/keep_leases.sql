-- Moves the leases of connected workers with the clock, as their heartbeats would have done while the time went by. => nothing
-- A worker without a session has died: its lease ends when the clock has passed it. Behind a pooler no session is recorded.
update pgflow.workers w
set lease_expires_at = w.lease_expires_at + {by}
where w.lease_expires_at > pgflow.now()
    and exists (select from pg_stat_activity a where a.pid = w.backend and a.backend_start <= w.attached_at)
