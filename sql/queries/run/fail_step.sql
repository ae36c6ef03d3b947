-- Fails a step that waits for an operator, and its instance. => no result
select pgflow.fail_step_run(%(run)s::bigint, %(step)s::text, %(reason)s::text)
