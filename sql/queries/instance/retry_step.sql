-- Retries a step of the newest run of a business value, in one version or any, that waits for an operator. => no result
select pgflow.retry_step_run(
    pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), %(step)s::text, notify => %(notify)s::boolean
)
