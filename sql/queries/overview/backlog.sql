-- Counts the jobs of a queue that workers could work on now, at most 10,000. => backlog
select pgflow.backlog(%(queue)s::text) as backlog
