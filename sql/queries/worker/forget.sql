-- Deletes workers whose lease expired long ago and that hold no job. => nothing
delete from pgflow.workers w
where w.lease_expires_at < pgflow.now() - make_interval(secs => %(age)s::double precision)
    and not exists (select from pgflow.jobs j where j.state = 'running' and j.worker = w.id)
