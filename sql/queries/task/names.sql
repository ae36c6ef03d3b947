-- Lists the names of all registered tasks, in order. => name
select t.name from pgflow.tasks t order by t.name
