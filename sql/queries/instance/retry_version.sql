-- Takes the newest run of a business value in one version up again after it failed. => nothing to read
select pgflow.retry_run(pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), notify => %(notify)s::boolean)
