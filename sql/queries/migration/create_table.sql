-- Creates the table of migrations; row 0 records the version of sql/functions/ that was last installed. => no result
create table if not exists pgflow.migrations (
    version integer primary key check (version >= 0),
    name text not null,
    checksum text not null,                             -- sha256 of the file with \n line ends; 'announced': pending until older workers have ended
    breaking boolean not null default false,            -- an older pgflow cannot run on this schema
    applied_at timestamptz not null default statement_timestamp()
)
