-- Queues that change at run time, and their limits. sql/README.md, "Limits of a queue", explains the columns.
alter table pgflow.queues
    add column paused_by text,                          -- a role, or the name that the caller gave
    add column worker_concurrency integer check (worker_concurrency between 1 and 10000),  -- overrides what each worker was started with
    add column is_limited boolean not null default false,  -- claims go through claim_limited only
    add column limited_at timestamptz,                  -- since when
    add column concurrency integer check (concurrency >= 1),  -- of all workers together; null: any
    add column key_concurrency integer check (key_concurrency >= 1),  -- the same for each partition key
    add column rate double precision check (rate > 0),  -- starts per second
    add column burst integer not null default 1 check (burst >= 1),  -- so many may start at once
    add column key_rate double precision check (key_rate > 0),
    add column key_burst integer not null default 1 check (key_burst >= 1),
    add column cursor text collate "C" not null default '',  -- where the last walk over the keys ended
    add column tat timestamptz not null default '-infinity';  -- when the bucket is full again (GCRA): all the state that a rate needs

-- What differs for one queue on one node.
create table pgflow.node_queues (
    node text not null,
    queue text not null,
    paused_at timestamptz,
    paused_by text,
    concurrency integer check (concurrency between 1 and 10000),
    primary key (node, queue)
);

-- What differs for one partition key.
create table pgflow.limits (
    queue text not null,
    key text collate "C" not null,
    concurrency integer check (concurrency >= 1),
    weight smallint not null default 1 check (weight >= 1),  -- so many jobs per turn of the keys
    primary key (queue, key)
);

-- The rate of a partition key. No row: the bucket is full. Written by the holder of the gate only.
create table pgflow.rates (
    queue text not null,
    key text collate "C" not null,
    tat timestamptz not null,
    primary key (queue, key)
) with (fillfactor = 50);

create index rates_full on pgflow.rates (tat);          -- rows to forget

-- Places of a limit that code outside of jobs has taken: a lease each, like that of a worker.
create table pgflow.places (
    id bigint generated always as identity primary key,
    queue text not null,
    key text collate "C" not null default '*',
    cost smallint not null default 1 check (cost >= 1),
    holder text,                                        -- for people: who has taken it
    taken_at timestamptz not null default pgflow.now(),
    expires_at timestamptz not null
) with (fillfactor = 50);

create index places_of_key on pgflow.places (queue, key) include (cost);

alter table pgflow.jobs
    add column key text collate "C",                    -- partition key; '*': counted by a limited queue, without a partition key
    add column cost smallint not null default 1;        -- how many places it takes
alter table pgflow.jobs
    add constraint jobs_key_limit check (octet_length(key) between 1 and 1000) not valid,
    add constraint jobs_cost_limit check (cost >= 1) not valid;
