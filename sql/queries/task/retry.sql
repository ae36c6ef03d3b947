-- Runs a failed or cancelled task once more, or a waiting one now; `task` null: of any name. => no result
select pgflow.retry_task(%(id)s::bigint, %(task)s::text, notify => %(notify)s::boolean)
