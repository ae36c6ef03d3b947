-- Ends the transactions that workers have left open whose lease has ended: what they hold locked, nobody could rescue. => backends
-- A process that stands still in the middle of a message keeps its transaction for as long as it likes: before PostgreSQL 17 no timeout counts then.
-- And one that stands still in a transactional step, from its settle until the commit, keeps the step's token and its instance.
-- Only what is surely theirs: a process that a worker reached through a pooler serves others, too, and has not been noted; a step's is
-- told by the token that it has locked, in whose row its transaction stands (nobody shares that lock: no foreign key leads to a token).
select count(*) filter (where pg_terminate_backend(a.pid)) as backends
from pg_stat_activity a
where a.pid <> pg_backend_pid() and a.datname = current_database() and pg_has_role(a.usesysid, 'member') and (
    a.application_name = 'pgflow:worker' and exists (
        select from pgflow.workers w
        where w.backend = a.pid and w.lease_expires_at < pgflow.now() and a.xact_start < w.lease_expires_at and a.backend_start <= w.attached_at
    )
    or a.application_name = 'pgflow:step' and a.backend_xid = any (array(
        select j.xmax
        from pgflow.jobs j
        where j.state = 'running' and exists (
            select from pgflow.workers w where w.id = any (array[j.worker]) and w.lease_expires_at < pgflow.now() and a.xact_start < w.lease_expires_at
        )
    ))
)
