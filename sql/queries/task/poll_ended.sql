-- Which of these tasks have ended or do not exist; workers notify of the end of tasks from now on, for `seconds`. => id
select unnest(pgflow.await_tasks(%(waiter)s::text, %(ids)b::bigint[], %(seconds)s::double precision)) as id
