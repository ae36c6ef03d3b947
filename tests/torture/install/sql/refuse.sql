-- Sets how often writes of a test install are refused. => nothing
update pgflow.refusals r set chance = %(chance)s::double precision
