-- Retries the newest run of a business value in one version, which has failed. => no result
select pgflow.retry_run(pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), notify => %(notify)s::boolean)
