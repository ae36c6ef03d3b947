-- Cancels the newest run of a business value. => nothing to read
select pgflow.cancel(%(workflow)s::text, %(value)s::text, %(reason)s::text, notify => %(notify)s::boolean)
