-- Cancels the newest run of a business value in one version. => no result
select pgflow.cancel_run(pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer), %(reason)s::text, notify => %(notify)s::boolean)
