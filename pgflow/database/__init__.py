"""Everything between Python and a PostgreSQL session. No module here knows pgflow's tables.

connect, dsn, settings        open a connection with the limits that a durable engine needs
transaction_status            whether a connection is idle
pooling                       keep connections open for threads and event loops
fork_safety                   detach forked children from the sessions of their parent
pgbouncer                     connections through a pooler in transaction mode
session                       turn what a caller passes as `conn` into an open psycopg connection
statement, files              a query, its parameters and its row decoder as a value; the SQL files
direct                        statements of the most frequent calls, exchanged with libpq itself
adapters, arrays, encoding    convert values, independent of process and session settings
sqlstate, db_errors           map SQLSTATEs to `pgflow.errors`; classify errors as transient or permanent
migration_files               the migrations and SQL functions that this version ships

*A pooler is declared, not detected.* A connection of our own gets its settings in its startup packet. Through a pooler
each transaction applies them and leaves nothing behind in the session. The first query on a direct connection detects
an undeclared pooler, which is then rejected.

*A connection belongs to the process that opened it.* A forked child opens its own and is detached from the sockets that
it inherits, so it can neither read another process's results nor end a session of its parent.
"""
