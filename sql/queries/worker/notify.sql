-- Wakes the workers of these queues; an empty name asks every worker whether its steps are still wanted. => nothing to read
select pg_notify(pgflow.channel(), q.name) from unnest(%(queues)b::text[]) q (name)
