-- Adds a worker with its first lease; each process start is a new worker. Adds none if a migration that breaks its code is applied or
-- announced: that may have happened since the worker checked. => id, or no row
insert into pgflow.workers (node, pid, queues, version, nonce, lease, lease_expires_at, backend, attached_at)
select
    %(node)s::text, %(pid)s::integer, %(queues)s::text[], %(version)s::text, %(nonce)s::text, make_interval(secs => %(lease)s::double precision),
    pgflow.now() + make_interval(secs => %(lease)s::double precision),
    case pg_backend_pid() when %(backend)s::integer then pg_backend_pid() end, clock_timestamp()  -- null behind a pooler: it serves other clients, too
where not exists (select from pgflow.migrations m where m.breaking and m.version > %(latest)s)
returning id
