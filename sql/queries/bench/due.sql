-- When the timers of one workflow are due, by the database's clock. => run, due (seconds since 1970)
select j.run, extract(epoch from j.run_at)::double precision
from pgflow.jobs j join pgflow.instances i on i.run = j.run
where j.state = 'parked' and j.run_at is not null and i.workflow = %(workflow)s::text
