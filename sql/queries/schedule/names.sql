-- Lists the names of all schedules, in order. => name
select s.name from pgflow.schedules s order by s.name
