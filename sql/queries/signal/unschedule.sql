-- Cancels a scheduled signal. => whether it was pending
select pgflow.unschedule(%(id)s::bigint)
