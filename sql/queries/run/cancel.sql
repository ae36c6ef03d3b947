-- Cancels an instance by its run. => no result
select pgflow.cancel_run(%(run)s::bigint, %(reason)s::text)
