-- Explains where an instance is, given by its run or by workflow and value. => step, job (null: no branch), kind, reason, since, until, queue
select
    w.step, w.job, w.kind, w.reason, case when isfinite(w.since) then w.since end as since, case when isfinite(w.until) then w.until end as until,
    w.queue
from pgflow.why(coalesce(%(run)s::bigint, pgflow.find(%(workflow)s::text, %(value)s::text))) w
