"""Health checks of a database and its workers. Findings are data; the command line and other interfaces render them.

checks       the list of all checks, and `examine`, which runs them
finding      what a check receives (`Target`) and returns (`Result`), and how it is run
server       version, encoding, settings, logging, connections, clock
schema       migrations, privileges, row-level security, stored definitions
pooler       whether a pooler is in between, and whether notifications arrive
work         workers and leases, unserved queues, overdue and orphaned rows
maintenance  open transactions, dead rows, wraparound, indexes, sequences

To add a check: its query (`sql/queries/doctor/`), the statement and its row (`store.doctor`, `store.doctor_rows`), the
function and its `Check` in one of these modules, and a test.
"""
