-- How many instances have reached their end. => instances
select count(*) from pgflow.instances i where i.status = 'completed'
