-- Deletes all runs of a business id, of one workflow and version if given, with their jobs, results and signals. => how many runs
select pgflow.delete_id(%(id)s::text, notify => %(notify)s::boolean, workflow => %(workflow)s::text, version => %(version)s::integer)
