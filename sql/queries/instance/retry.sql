-- Takes the newest run of a business value up again after it failed. => nothing to read
select pgflow.retry(%(workflow)s::text, %(value)s::text, notify => %(notify)s::boolean)
