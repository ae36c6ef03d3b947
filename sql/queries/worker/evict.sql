-- Ends the transactions that workers have left open whose lease has ended: what they hold locked, nobody could rescue. => backends
-- A process that stands still in the middle of a message keeps its transaction for as long as it likes: before PostgreSQL 17 no timeout counts then.
-- Only what is surely theirs: a process that a worker reached through a pooler serves others, too, and has not been noted.
select count(*) filter (where pg_terminate_backend(a.pid)) as backends
from pgflow.workers w join pg_stat_activity a on a.pid = w.backend
where w.lease_expires_at < pgflow.now() and a.xact_start < w.lease_expires_at and a.backend_start <= w.attached_at
    and a.pid <> pg_backend_pid() and a.datname = current_database() and a.application_name = 'pgflow:worker' and pg_has_role(a.usesysid, 'member')
