-- Fails a step of the newest run of a business value, in one version or any, that waits for an operator, and its instance. => no result
select pgflow.fail_step_run(
    pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), %(step)s::text, %(reason)s::text, notify => %(notify)s::boolean
)
