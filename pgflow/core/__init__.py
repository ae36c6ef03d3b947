"""The core decides, and does nothing: no database, no clock, no chance, so that it can be tested by itself.

What it is for. A user's workflow class becomes a `Graph`, once, at import. From then on an instance is a `State`, which
is a pure function of that graph and of what the steps came to; `advance(state, event)` gives the next state and the
commands that follow. Whoever runs an instance (a worker on PostgreSQL, a loop in memory) carries the commands out and
reports what happened as the next event. Nothing here knows which of them it is.

    definition/     what users write: steps, workflows, routes, retry policies, and the rules that check them
    engine/         events in, state and commands out; what an attempt at a step returned or raised
    models/         what callers read: instances, jobs, filters
    values/         JSON payloads, codecs, secrets, names
    picture/        a workflow as text, Mermaid, Graphviz or SVG

Decisions, and why.

*Commands, not callbacks.* The engine returns what is to be done as values. A worker can then write the result, the new
state and the next jobs in one transaction, and a test needs neither a database nor a fake of one.

*Durations, not moments.* Only the database knows what time it is. The core says "after an hour"; SQL adds it to its
clock.

*State is derived, never stored.* The database keeps what each step came to; `replay` gives the state, in whatever order
the results are read. There is no second copy that could disagree with the first.

*Joins by dead-path elimination.* A join waits for every edge into it to be resolved, taken or dead; so it runs exactly
once whichever way the branches before it went, and Done is a join like any other. Counting tokens would starve on
exclusive branches, or run a join twice.

*Everything is checked at import.* A workflow that could get stuck is refused where its class is made, with one message
that names workflow, step and mend. What cannot be known then, a route's choice or an event, is checked when it happens,
and fails the instance with the reason.

*A version is a workflow class.* An umbrella only names them and chooses one at the start; it has no graph, so nothing
below it has to know that there are several. They share its name, which with the number is the key of a definition.

*A codec is a value, not a layer.* Whoever writes or reads a place asks it, with that place; without one nothing is
asked. What is sealed is JSON like anything else, so no table and no function knows of it.

*A value from the database never selects code.* Steps are found by key in a graph that the program brought.
"""
