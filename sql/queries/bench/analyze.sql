-- Has the planner look at what was put into the tables. => nothing
-- Not at those that are empty still: it would take them for empty for ever, as autovacuum, which leaves them alone, does not.
analyze pgflow.instances, pgflow.jobs
