"""The pure core: definitions, the engine and values. It uses no database, no clock and no random numbers.

A workflow class becomes a `Graph` once, at import. An instance is a `State`, a pure function of that graph and the
results of its steps; `advance(state, event)` returns the next state and the commands that follow. A backend (a worker
on PostgreSQL, or the loop in memory) carries the commands out and reports what happened as the next event. The core
does not know which backend calls it.

    definition/     what users write: steps, workflows, routes, retry policies, and the rules that check them
    engine/         events in, state and commands out; what an attempt at a step returned or raised
    models/         what callers read: instances, jobs, filters
    values/         JSON payloads, codecs, secrets, names
    picture/        a workflow as text, Mermaid, Graphviz or SVG

Design decisions:

*Commands, not callbacks.* The engine returns its effects as values. A worker can write the result, the new state and
the next jobs in one transaction, and a test needs neither a database nor a fake.

*Durations, not timestamps.* Only the database clock counts. The core returns "in an hour"; SQL adds it to its clock.

*State is derived, never stored.* The database stores the result of each step; `replay` computes the state from them, in
whatever order they are read. There is no second copy that could disagree.

*Joins by dead-path elimination.* A join waits until every edge into it is resolved: taken or dead. So it runs exactly
once whichever branches before it ran, and Done is a join like any other. Counting completed branches instead would
block after exclusive branches, or run a join twice.

*Everything is checked at import.* A workflow that could get stuck is refused when its class is created, with a message
that has workflow, step and fix. What is known only at run time, a route's choice or an event, is checked when it
happens, and fails the instance with the reason.

*A version is a workflow class.* A versioned workflow only names its versions and chooses one at the start. It has no
graph, so the layers below do not know that there are several. Name and version are the key of a definition.

*A codec is a value, not a layer.* The code that writes or reads a value calls the codec with the value's location;
without a codec nothing is called. An encrypted value is JSON like any other, so tables and SQL functions are the same.

*A stored value never selects code.* Steps are found by key in a graph of the running program.
"""
