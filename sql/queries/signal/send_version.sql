-- Sends a signal to the newest run of a business value in one version. => 'delivered' or 'kept'
select pgflow.resume_run(
    pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), %(event)s::text, %(payload)s::jsonb, %(step)s::text,
    notify => %(notify)s::boolean
)
