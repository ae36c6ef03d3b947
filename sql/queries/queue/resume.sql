-- Ends the pause of a queue, that of one node or of all (null). => was_paused
select pgflow.resume_queue(%(queue)s::text, %(node)s::text)
