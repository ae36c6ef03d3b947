-- Starts the runs of instants of a schedule. => instant, run, created, in the order given
select s.instant, s.run, s.created from pgflow.start_instants(%(name)s::text, %(target)s::text, %(starts)s::jsonb, %(notify)s::boolean) s order by s.ord
