"""Everything between Python and a PostgreSQL session; nothing here knows a table of pgflow.

connect, dsn, settings        open a connection with the limits that a durable engine needs
pool, checkout, inherited     connections per thread and event loop; forked children open their own
pgbouncer                     connections through a pooler in transaction mode
callers                       validate the connection that a caller passes as `conn`
statement, files              a query, its parameters and its row decoder as a value; the SQL files
adapters, arrays, encoding    convert values, independent of the process and the session
sqlstate, db_errors           map SQLSTATEs to `pgflow.errors`; classify errors as transient or permanent
migration_files               the migrations and SQL functions that this version ships
"""
