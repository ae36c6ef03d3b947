-- Calls a scheduled signal off. => whether it was still to be sent
select pgflow.unschedule(%(id)s::bigint)
