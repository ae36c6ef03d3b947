-- Reads the status of a run. => status, or no row
select i.status from pgflow.instances i where i.run = %(run)s
