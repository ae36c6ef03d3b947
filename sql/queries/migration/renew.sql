-- Enters which functions are in place, unless somebody else has just entered the same. => version, name, checksum, breaking, applied_at
insert into pgflow.migrations as m (version, name, checksum)
values (%(version)s, %(name)s, %(checksum)s)
on conflict (version) do update set name = excluded.name, checksum = excluded.checksum, applied_at = excluded.applied_at
where m.checksum <> excluded.checksum
returning version, name, checksum, breaking, applied_at
