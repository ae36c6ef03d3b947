-- Cancels the newest run of a business value. => no result
select pgflow.cancel(%(workflow)s::text, %(value)s::text, %(reason)s::text, notify => %(notify)s::boolean)
