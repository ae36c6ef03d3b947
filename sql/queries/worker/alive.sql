-- Finds the workers whose lease has not expired; valid on every schema since 0001. => id, node, pid, version
select w.id, w.node, w.pid, w.version
from pgflow.workers w
where w.lease_expires_at > pgflow.now()
order by w.id
