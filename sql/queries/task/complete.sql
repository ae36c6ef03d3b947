-- Completes a task that waits for an operator, of any name for a null `task`. => nothing
select pgflow.complete_task(%(id)s, %(output)s::jsonb, %(task)s::text, %(notify)s::boolean)
