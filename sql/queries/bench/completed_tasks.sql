-- Counts the completed tasks. => tasks
select count(*) from pgflow.task_results r where r.status = 'completed'
