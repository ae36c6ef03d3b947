-- Fails a task that waits for an operator, of any name for a null `task`. => nothing
select pgflow.fail_task(%(id)s, %(reason)s::text, %(task)s::text, %(notify)s::boolean)
