-- Pauses a queue, on one node or on all (null), unless it is paused. => running (how many of its jobs run)
select pgflow.drain_queue(%(queue)s::text, %(node)s::text, %(by)s::text) as running
