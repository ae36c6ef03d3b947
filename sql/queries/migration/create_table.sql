-- Creates the ledger of migrations; row 0 is not a migration, but what sql/functions/ was when it was last put in. => nothing
create table if not exists pgflow.migrations (
    version integer primary key check (version >= 0),
    name text not null,
    checksum text not null,                             -- sha256 of the file, line ends as \n; 'announced': it is yet to be applied, once no older worker is left
    breaking boolean not null default false,            -- an older pgflow must not run on this schema
    applied_at timestamptz not null default statement_timestamp()
)
