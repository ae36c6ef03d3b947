-- Deletes a task that does not run; `task` null: of any name. => no result
select pgflow.delete_task(%(id)s::bigint, %(task)s::text)
