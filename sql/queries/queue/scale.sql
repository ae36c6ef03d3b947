-- Sets how many jobs of a queue each worker runs at once (null: as it was started), on one node or on all (null). => nothing
select pgflow.scale_queue(%(queue)s::text, %(worker_concurrency)s::integer, %(node)s::text)
