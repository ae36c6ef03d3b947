-- Cancels a task that has not ended; `task` null: of any name. => no result
select pgflow.cancel_task(%(id)s::bigint, %(reason)s::text, %(task)s::text, notify => %(notify)s::boolean)
