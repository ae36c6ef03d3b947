-- The apps that wait for the end of tasks: workers notify only while there is one. A row per app and process, and only while it waits.
create table pgflow.waiters (
    id text primary key,
    expires_at timestamptz not null
) with (fillfactor = 50);
