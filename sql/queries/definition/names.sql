-- Lists the names of all registered workflows. => workflow
select distinct d.workflow from pgflow.definitions d order by d.workflow
