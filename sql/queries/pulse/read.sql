-- Reads a value that changes with each write to the tables, and whether this server is a replica. => position, is_replica
-- The statistics cost no table access; a transaction counts in them up to a second after its commit.
select
    case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text
        else (
            select sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del)::text from pg_stat_user_tables s
            where s.relid = any (array[
                'pgflow.instances'::regclass, 'pgflow.jobs'::regclass, 'pgflow.step_results'::regclass, 'pgflow.signals'::regclass,
                'pgflow.queues'::regclass, 'pgflow.task_results'::regclass, 'pgflow.schedules'::regclass]::oid[])
        ) end as position,
    pg_is_in_recovery() as is_replica
