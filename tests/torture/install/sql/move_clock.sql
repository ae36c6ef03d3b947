-- Moves the clock of a test install to where it is so many seconds ahead of the real one. => nothing
update pgflow.clock c set ahead = make_interval(secs => %(ahead)s::double precision)
