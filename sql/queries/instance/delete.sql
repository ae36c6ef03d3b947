-- Deletes all runs of a business id, of one workflow and version if named, with everything that belongs to them. => how many there were
select pgflow.delete_id(%(id)s::text, notify => %(notify)s::boolean, workflow => %(workflow)s::text, version => %(version)s::integer)
