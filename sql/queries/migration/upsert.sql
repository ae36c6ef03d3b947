-- Records the installed functions, or a migration again after its row was lost; an identical row is left alone. => version, name, checksum, breaking, applied_at; or no row
insert into pgflow.migrations as m (version, name, checksum, breaking)
values (%(version)s, %(name)s, %(checksum)s, %(breaking)s)
on conflict (version) do update set name = excluded.name, checksum = excluded.checksum, breaking = excluded.breaking, applied_at = excluded.applied_at
where (m.checksum, m.breaking) is distinct from (excluded.checksum, excluded.breaking)
returning version, name, checksum, breaking, applied_at
