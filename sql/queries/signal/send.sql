-- Sends a signal to the newest run of a business value. => 'delivered' or 'kept'
select pgflow.resume(%(workflow)s::text, %(value)s::text, %(event)s::text, %(payload)s::jsonb, %(step)s::text, notify => %(notify)s::boolean)
