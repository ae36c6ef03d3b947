-- Deletes audit rows older than an age, up to a limit. => how many
select pgflow.forget_audit(make_interval(secs => %(age)s::double precision), %(limit)s::integer) as deleted
