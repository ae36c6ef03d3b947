-- Retries a step that waits for an operator. => no result
select pgflow.retry_step_run(%(run)s::bigint, %(step)s::text)
