-- Terminates sessions of workers that still have a transaction open on this schema's tables, when no worker is alive: a process that is
-- stopped in the middle of one, most likely in a transactional step, would keep its locks for minutes. => backends
select count(*) filter (where pg_terminate_backend(a.pid)) as backends
from pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start is not null
    and a.application_name in ('pgflow:worker', 'pgflow:step') and pg_has_role(a.usesysid, 'member')
    and exists (
        select from pg_locks l join pg_class c on c.oid = l.relation
        where l.pid = a.pid and l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and c.relnamespace = (select n.relnamespace from pg_class n where n.oid = 'pgflow.workers'::regclass)
    )
