-- Deletes the announcement of a migration that was not applied. => no result
delete from pgflow.migrations m where m.version = %(version)s and m.checksum = %(announced)s
