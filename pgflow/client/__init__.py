"""The front door: one set of calls for `Pgflow`, `Local` and workflow classes, and the backends behind it.

    your call ─► client: makes a command ─► backend.execute(command, conn) ─► answer
                                              ├─ PostgresBackend: plan ─► statements ─► transport ─► PostgreSQL
                                              └─ MemoryBackend (pgflow.local)

commands                        requests as frozen values, with the options of each call
client                          the calls of an app, sync and async: `app.start(OrderFlow, …)`
workflow, apps                  the calls of a workflow class: `OrderFlow.start(…)`, and the open apps they may go to
app                             a client that workflows are bound to: what `Pgflow` and `Local` subclass
backend                         the contract: `execute(command, session)` and `aexecute`
addressing                      which instance a call addresses, and its idempotency key
start_request, signal_request   the checks that every backend makes before it does anything
storage                         whole instances: get, put, delete, query
postgres, statements            a command as a plan, and as SQL
transport, notify_throttle      connections, retries, exactly-once writes, waking workers
registration, pruning           storing definitions, deleting old instances

Decisions, and why.

*Commands are values.* A call becomes a frozen dataclass before anything happens. Its options are written once, in
`commands`; each backend has one place that reads them. A client of another kind (the dashboard, a remote one) sends the
same commands.

*One plan for sync and async.* A PostgreSQL plan is a generator that yields statements and receives rows, so that only
the two loops that send them differ.

*Nothing here imports psycopg before a call needs it.* `pgflow.Workflow` comes from this package, and a unit test of a
workflow must not load a driver. The modules of PostgreSQL are imported by `pgflow.app`.
"""
