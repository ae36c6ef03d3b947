"""Floor 2, the store: everything that speaks SQL, and nothing that decides.

PostgreSQL is not where pgflow keeps its data, it is where pgflow *happens*: what is claimed, due, unique, cancelled or
lost is decided by one statement in one transaction, on the database's own clock. Python code here carries values in
and rows out. From that follows the shape of this floor:

*SQL is written as SQL.* Each statement is a file of its own, `sql/queries/<noun>/<verb>.sql`, and has one function,
`pgflow.store.<noun>.<verb>`; so the path is the name, psql can run it, an editor can colour it, `explain` can be asked
about it, and a test holds the two lists equal. Nothing is glued together from strings. Its first line says what it
does and which columns it returns; further comments speak of the planner and of locks, which the syntax does not show.

*A statement is a value.* A function returns the query, its parameters and how to read its rows; `run` and `arun` send
it over a sync or an async connection. All thought is shared, and the two clients differ by a word per method.

*Many rows are one statement.* Parameters are arrays, results are sets; a batch costs one round trip and one commit.

*One schema, one place.* Every name in the files is qualified with `pgflow.`; `files.load` puts another schema's name
in. No session state is needed for that, no search_path, so any pooler will do.

*A pooler is named, not guessed.* A connection of our own is set up by its first packet. Through a pooler every
transaction sets itself up and leaves nothing behind (`pooled.py`); one of which nobody has spoken is found out by the
first question on a connection, and refused.

*A connection belongs to the process that opened it.* A forked child opens its own (`lending.py`, over
`pgflow.process`) and is cut off from the sockets that it inherits (`inherited.py`), so it can neither read answers that
are not its own nor end a session of its parent.

*JSON goes in and out as text.* The core's payload door encodes and decodes it, one value at a time, so that one bad
row cannot stop a batch, and nothing but JSON is ever read back.

Beside the statements stand what they need to be reached: connections and their errors, the listener, the migrations
with their ledger, and `embedded`, a throwaway PostgreSQL for whoever has none yet.
"""
