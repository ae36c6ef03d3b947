-- Retries the newest run of a business value, which has failed. => no result
select pgflow.retry(%(workflow)s::text, %(value)s::text, notify => %(notify)s::boolean)
