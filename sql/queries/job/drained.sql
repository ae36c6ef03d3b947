-- Whether nothing is left in these queues that will go on by itself; waits for a signal do not count. => drained
select not exists (
    select from pgflow.jobs j
    where j.queue = any (%(queues)s::text[])
        and (j.state <> 'parked' or j.run_at is not null or exists (select from pgflow.scheduled_signals s where s.run = j.run))
)
