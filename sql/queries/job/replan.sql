-- Has the statements that follow in this transaction planned for the rows they are given. => nothing to read
select set_config('plan_cache_mode', 'force_custom_plan', true)
