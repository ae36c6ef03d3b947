"""Fault injection with a history checker: `python -m tests.torture`. Not part of the package.

A run injects every fault that this machine can produce, while callers start and signal instances, enqueue tasks, and
worker processes run them, and schedules fire. A checker then compares the whole history with the guarantees.

    command ─► trial ─┬─► workload  callers that start instances of every shape, enqueue tasks in every way, and record
                      │             each answer
                      │             (forking_client: a client process whose forked children call, too)
                      ├─► workers   worker processes, restarted when they end; their entry point arms failpoints
                      ├─► faults    the schedule of faults, drawn from a seed
                      │               wire/    a PostgreSQL proxy that loses single commits, answers and notifications
                      │               host/    servers with a standby, a disk, a network and clocks that can fail
                      └─► checker   invariants I1 to I28 over the history, and counters of what the run covered

`install/` adds to a throwaway schema what no other schema has: a log of all changes, a movable clock, rejected writes.
`selftest/` tests the harness itself. `mutants` shows that it detects seeded defects, `sweep` loses each commit in turn,
`limits` proves the limits of queues, `soak` measures a worker's memory over hours.

Decisions:

*The history is complete.* Triggers record each change in the transaction that makes it; steps and callers write a line
before and after. Nothing has to be guessed, and a run can be checked again later.

*Random and aimed.* A seed chooses the faults, and each is injected at least once. Failpoints kill a process just before
and just after each commit, a window that random faults would hit once in a million.

*A fault that did not happen proves nothing.* It makes the run invalid, not green.

*The package knows nothing of it.* Workers start through `tests.torture.worker`, which installs a hook at the points of
`pgflow.worker.points`. A production worker reads no failpoint variable, and the wheel contains none of this.
"""
