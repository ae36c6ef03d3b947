-- Has the planner look at the tables as they are now. => nothing
analyze pgflow.instances, pgflow.step_results, pgflow.jobs, pgflow.signals
