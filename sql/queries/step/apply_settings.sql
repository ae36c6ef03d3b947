-- Applies a worker's search_path, timeouts and planner settings for the rest of a step's transaction. => no result
-- A generic plan, because planning a settle takes three times as long as executing it for one job. Sequential scans: see sql/README.md.
select
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
    pg_catalog.set_config('statement_timeout', '30000', true),
    pg_catalog.set_config('lock_timeout', '2000', true),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '10000', true),
    pg_catalog.set_config('jit', 'off', true),
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true),
    pg_catalog.set_config('enable_seqscan', 'off', true)
