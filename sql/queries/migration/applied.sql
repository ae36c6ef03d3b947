-- Lists the recorded migrations. => version, name, checksum, breaking, applied_at
select m.version, m.name, m.checksum, m.breaking, m.applied_at from pgflow.migrations m order by m.version
