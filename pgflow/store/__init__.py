"""Statements on pgflow's tables: one module per noun, one function per query file. Nothing here makes decisions.

PostgreSQL is not only where pgflow keeps its data: which jobs are claimed, due, unique, cancelled or orphaned is
decided by one statement in one transaction, on the database's clock. Python carries values in and rows out.

definition              the graphs of registered workflows
instance, instance_rows instances, and how their rows are decoded
run, run_rows           one instance by its run, and pages of them, as the dashboard shows them
summary, pulse          what its first page shows; whether anything was written
job                     claim, settle, rescue and the other statements on jobs
signal                  signals, now or scheduled
request                 idempotency keys
payload                 references to a payload store
worker                  registration, leases and notifications of workers
step                    the session of a transactional step before its settle
migration, role         recorded migrations; roles and privileges
overview                the views and functions for people
doctor, doctor_rows     what `pgflow doctor` reads
bench                   what `pgflow bench` reads

*SQL is written as SQL.* Each statement is a file, `sql/queries/<noun>/<verb>.sql`, with one function,
`pgflow.store.<noun>.<verb>`, so that psql can run it, an editor highlights it and `explain` can be tested; a test holds
the two lists equal. No SQL is assembled from strings. The first line of a file states what it does and which columns it
returns; further comments are about the planner and locks.

*A statement is a value.* A function returns the query, its parameters and how to decode its rows; `run` and `arun` of
`pgflow.database.statement` send it over a sync or an async connection, and share everything else.

*Many rows are one statement.* Parameters are arrays, results are sets; a batch costs one round trip and one commit.

*The schema's name is set in one place.* Every name in the files is qualified with `pgflow.`, and `files.load` replaces
it. So statements need no search_path or other session state, and work through any pooler.

*JSON is sent and read as text.* `pgflow.core.values.payload` encodes and decodes one value at a time, so that one bad
row cannot fail a batch.
"""
