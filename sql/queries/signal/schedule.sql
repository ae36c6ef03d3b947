-- Schedules a signal to one step of the newest run of a business value. => run, id, due_at
select f.run, s.id, s.due_at
from (select pgflow.find(%(workflow)s::text, %(value)s::text, %(version)s::integer) as run offset 0) f
cross join lateral pgflow.schedule_resume_run(
    f.run, %(step)s::text, make_interval(secs => %(delay)s::double precision), %(event)s::text, %(payload)s::jsonb
) s
