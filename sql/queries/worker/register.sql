-- Adds a worker and gives it its first lease; each process start is a new worker. => id
insert into pgflow.workers (node, pid, queues, version, nonce, lease, lease_expires_at, backend, attached_at)
values (
    %(node)s, %(pid)s, %(queues)s, %(version)s, %(nonce)s, make_interval(secs => %(lease)s::double precision),
    pgflow.now() + make_interval(secs => %(lease)s::double precision),
    case pg_backend_pid() when %(backend)s::integer then pg_backend_pid() end, clock_timestamp()  -- null: a pooler's, which serves others, too
)
returning id
