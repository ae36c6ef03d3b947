-- Whether this is a test install, in which changes are noted and failpoints may be armed. => installed
select to_regclass('pgflow.audit') is not null
