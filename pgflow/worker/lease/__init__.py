"""A worker's identity in the database, and what keeps its lease.

identity             registration, and the end of the lease
heartbeat            renews the lease from a thread with its own connection
heartbeat_process    renews it while a step holds Python's global lock
preflight            the check of the server before a worker registers
"""
