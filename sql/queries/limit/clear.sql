-- Removes the limits of a queue, or of one partition key. => had_limits
select pgflow.clear_limit(%(queue)s::text, %(key)s::text)
