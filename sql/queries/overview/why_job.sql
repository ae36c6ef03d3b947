-- Explains where a job is, of an instance or of a task. => step, job, kind, reason, since, until, queue
select
    w.step, w.job, w.kind, w.reason, case when isfinite(w.since) then w.since end as since, case when isfinite(w.until) then w.until end as until,
    w.queue
from pgflow.why_job(%(job)s::bigint) w
