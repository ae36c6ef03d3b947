-- Takes back the announcement of a migration that has not been applied. => nothing
delete from pgflow.migrations m where m.version = %(version)s and m.checksum = %(announced)s
