-- Ends a timer, a back-off or a delay of a step now. => no result
select pgflow.run_step_now(%(run)s::bigint, %(step)s::text)
