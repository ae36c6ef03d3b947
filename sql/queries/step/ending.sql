-- Reads what a step's session is like when the step has returned. => mark, has_prepared
-- mark is what the worker set at the beginning of the step's transaction: another value, or none, shows that this is another transaction.
-- has_prepared: whether the session has statements from PREPARE, which no rollback removes.
select
    pg_catalog.current_setting('pgflow_step.mark', true) as mark,
    exists (select from pg_catalog.pg_prepared_statements p where p.from_sql) as has_prepared
