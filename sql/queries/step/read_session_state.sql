-- Reads the state of a transactional step's session after the step returned. => mark, has_prepared
-- `mark` is the setting that the worker made at the start of the step's transaction: with another value, or none, this is another transaction.
-- `has_prepared`: the session has statements of SQL PREPARE, which a rollback does not remove.
select
    pg_catalog.current_setting('pgflow_step.mark', true) as mark,
    exists (select from pg_catalog.pg_prepared_statements p where p.from_sql) as has_prepared
