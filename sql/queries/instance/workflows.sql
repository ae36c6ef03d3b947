-- Lists the workflows that have runs of a business id, by name. => workflow
select distinct i.workflow from pgflow.instances i where i.id = %(id)s::text order by i.workflow
