-- Terminates backends in which workers with an expired lease keep a transaction open, and so rows locked that a rescue has to free. => backends
-- A process that is stopped in the middle of a message keeps its transaction open: before PostgreSQL 17 no timeout applies then. One that is
-- stopped in a transactional step, between its settle and the commit, keeps its job and its instance locked.
-- Only backends that surely belong to such a worker. Behind a pooler a backend serves other clients, too, so it was not recorded. A step's
-- backend is found by the job that it has locked: its transaction id is the row's xmax. No other transaction shares that lock, because no
-- foreign key refers to jobs.
select count(*) filter (where pg_terminate_backend(a.pid)) as backends
from pg_stat_activity a
cross join (select pgflow.now() - statement_timestamp() as ahead) c  -- a test may move pgflow's clock, which leases follow and sessions do not
where a.pid <> pg_backend_pid() and a.datname = current_database() and pg_has_role(a.usesysid, 'member') and (
    a.application_name = 'pgflow:worker' and exists (
        select from pgflow.workers w
        where w.backend = a.pid and w.lease_expires_at < pgflow.now() and a.xact_start + c.ahead < w.lease_expires_at
            and a.backend_start <= w.attached_at
    )
    or a.application_name = 'pgflow:step' and a.backend_xid = any (array(
        select j.xmax
        from pgflow.jobs j
        where j.state = 'running' and exists (
            select from pgflow.workers w
            where w.id = any (array[j.worker]) and w.lease_expires_at < pgflow.now() and a.xact_start + c.ahead < w.lease_expires_at
        )
    ))
)
