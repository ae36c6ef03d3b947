"""Connections that a process keeps open, for its threads and for the tasks of each event loop.

pool          `Pool`: one ConnectionPool for threads and one AsyncConnectionPool per event loop, in each process
sync_pool     `ConnectionPool`: connections for threads
async_pool    `AsyncConnectionPool`: connections for the tasks of one event loop
idle          idle connections, and what to do when the server has no free connection slots

No pool connects in the background: callers open the connections they need. So the error of a failed connection reaches
its caller at once, no task outlives its event loop, and a forked child lacks no thread. (A pool with background workers
often has a connection attempt in progress when `asyncio.run` ends the loop. psycopg_pool's workers survive their
cancellation, and the program hangs.)

A server may allow few connections. When it refuses one, this process closes its idle connections, of all pools, and
tries again; while other connections are in use, the caller waits for one of their slots. As long as it waits, other
pools close released connections instead of keeping them: an event loop cannot use a connection of threads.
"""
