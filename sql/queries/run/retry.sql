-- Retries a failed instance by its run. => no result
select pgflow.retry_run(%(run)s::bigint)
