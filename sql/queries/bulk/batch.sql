-- Works off the next batch of a bulk operation. => result (JSON: action, matched, changed, finished, skipped, total)
select pgflow.bulk_batch(%(operation)s::bigint, %(limit)s::integer, notify => %(notify)s::boolean)::text as result
