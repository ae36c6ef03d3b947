-- Sends a signal to an instance by its run. => result (delivered or kept)
select pgflow.resume_run(%(run)s::bigint, %(event)s::text, %(payload)s::jsonb, %(step)s::text) as result
