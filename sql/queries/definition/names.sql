-- The names of all workflows that apps have brought. => workflow
select distinct d.workflow from pgflow.definitions d order by d.workflow
