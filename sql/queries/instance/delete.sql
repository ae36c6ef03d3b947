-- Deletes all runs of a business id with everything that belongs to them. => how many there were
select pgflow.delete_id(%(id)s::text, notify => %(notify)s::boolean)
