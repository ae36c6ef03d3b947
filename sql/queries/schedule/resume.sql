-- Resumes a schedule. => nothing
select from pgflow.resume_schedule(%(name)s::text)
