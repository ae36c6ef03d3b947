-- Sets the probability with which writes of a test install fail. => nothing
update pgflow.refusals r set chance = %(chance)s::double precision
