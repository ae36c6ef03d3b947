"""Health checks of a database and its workers, as findings (data) that every interface renders.

finding     what a check receives and returns
server      version, settings, connections, schema, poolers, clock
upkeep      dead rows, indexes, wraparound
work        workers and leases, unserved queues, overdue jobs
"""
