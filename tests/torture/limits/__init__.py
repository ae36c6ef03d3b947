"""Whether a limit is ever exceeded, and whether a place or a job is ever lost: `python -m tests.torture.limits`.

Claimers work on one limited queue through the statements of the worker while sessions are terminated at random,
claimers stop with jobs in their hands, limits change, the queue is paused, jobs are cancelled, producers leave their
transactions open and roll some back, code takes places, and one transaction stays open all the time. After each
statement that starts jobs a trigger compares what runs with the limits, behind the gate, where they cannot change, and
notes the starts. In the end every job that was committed has ended exactly once, or was cancelled; and for rates, the
starts of each window of time fit into the bucket.

`python -m tests.torture.limits.workers` does it with worker processes and tasks, see there.
"""
