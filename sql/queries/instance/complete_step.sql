-- Completes a step of the newest run of a business value, in one version or any, that waits for an operator. => no result
select pgflow.complete_step_run(
    pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), %(step)s::text, %(event)s::text, %(output)s::jsonb,
    notify => %(notify)s::boolean
)
