-- Deletes workers whose lease ended long ago. => nothing
delete from pgflow.workers w
where w.lease_expires_at < pgflow.now() - make_interval(secs => %(age)s::double precision)
    and not exists (select from pgflow.jobs j where j.state = 'running' and j.worker = w.id)
