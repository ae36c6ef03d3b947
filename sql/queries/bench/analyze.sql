-- Updates the planner's statistics of the filled tables. => nothing
-- Not of empty tables: the planner would believe that they stay empty. Autovacuum leaves them alone, too.
analyze pgflow.instances, pgflow.jobs
