-- Sets the clock of a test install ahead of the real time. => nothing
update pgflow.clock c set ahead = make_interval(secs => %(ahead)s::double precision)
