-- Records a migration before it runs, in its transaction: the primary key makes one of two concurrent sessions fail. => version, name, checksum, breaking, applied_at
insert into pgflow.migrations (version, name, checksum, breaking)
values (%(version)s, %(name)s, %(checksum)s, %(breaking)s)
returning version, name, checksum, breaking, applied_at
