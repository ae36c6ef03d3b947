-- Whether these queues are drained: each job left in them waits for a signal, and none is scheduled. => drained
select not exists (
    select from pgflow.jobs j
    where j.queue = any (%(queues)s::text[])
        and (j.state <> 'parked' or j.run_at is not null or exists (select from pgflow.scheduled_signals s where s.run = j.run))
)
