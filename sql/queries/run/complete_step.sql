-- Completes a step that waits for an operator. => no result
select pgflow.complete_step_run(%(run)s::bigint, %(step)s::text, %(event)s::text, %(output)s::jsonb)
