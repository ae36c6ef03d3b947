-- Counts the completed instances. => instances
select count(*) from pgflow.instances i where i.status = 'completed'
