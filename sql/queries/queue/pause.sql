-- Pauses a queue, on one node or on all (null). => nothing
select pgflow.pause_queue(%(queue)s::text, %(node)s::text, %(by)s::text)
