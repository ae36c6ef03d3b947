-- Counts what has ended within a period. => kind ("workflow" or "task"), name, completed, failed, cancelled, per_second
select t.kind, t.name, t.completed, t.failed, t.cancelled, t.per_second
from pgflow.throughput(make_interval(secs => %(seconds)s::double precision)) t
