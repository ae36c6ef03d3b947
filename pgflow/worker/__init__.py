"""The worker: claim jobs in batches, run their steps, and settle the results and claim again in one round trip.

Data flows one way:

    claim ─► HeldJobs ─► QueueBuffer ─► Runner ─► outcome ─► decide ─► settle ─► Settler.adopt
             (claimed     (a slot of     (the      (a value)   (pure)    (SQL)     (jobs that move on
              jobs)        its queue)     step)                                     stay with this worker)

| module | what it does |
|---|---|
| supervisor | `Worker`: its life cycle from start to drain |
| lease | its identity in the database, its heartbeats, the check of a server at the start |
| turns | the loop's round trips: planning, sending, outages |
| schedule_targets | what it may start for schedules |
| chores | upkeep that goes along with turns, one file each |
| held_jobs, queue_buffer, admission | claimed jobs in memory; how many more to claim |
| claimed_job, outcome, committed | the values that pass between these |
| job_tasks, runner, transactional | running steps |
| decide, settler | turning outcomes into rows, and answers into the next state |
| listener | notifications |
| report, points | telemetry; hooks for fault injection |
| loop | the event loop |

Decisions:

*One loop, one connection, group commit.* Outcomes collect while a settle is in flight; the next settle takes them all
and claims the next jobs in the same round trip and transaction (turns/). No timer delays a lone step.

*Optimistic concurrency.* A decision is made in memory on a revision of the instance; the settle locks the instance and
compares. So nothing is locked while Python runs, no worker waits for another, and a decision that came too late is
folded in later by an advance job. The owner of a solo job needs neither the lock nor the instance.

*A claim stays cheap under a pinned xmin.* While a transaction stays open, dead tuples pile up where claims start in the
index. After a slow claim, the next ones start at the queue's watermark; a small share of the time goes into claims
below it (turns/watermark.py).

*Fencing.* A settle writes a row only if its job still belongs to this worker, in this attempt, at this step. A worker
whose lease has expired takes a new identity and forgets the jobs that it held.

*Poison jobs are isolated.* A job whose worker was lost twice is quarantined: it waits until no other job is held, and
nothing is claimed until it has run (held_jobs.py; sql/README.md explains why that finds the cause).

*Heartbeats cannot be starved.* A thread with its own connection renews the lease; while a step holds Python's global
lock, a second process does (lease/).

*One run, one set of resources.* Connections, threads, locks of the event loop and held jobs belong to one call of
`run`. The worker object keeps only settings and counters. So it can run again after a failed start, a drain or a
cancellation, also in another event loop (supervisor.py).

*One process, one lease.* A step may fork. A child that returns from the step ends there (`pgflow.process`), and both
kinds of heartbeat ignore children.

*Drain before a breaking migration.* Each sweep also looks for an announced migration that breaks this code
(chores/check_migrations.py). The worker then claims nothing more, finishes its steps and ends; `pgflow migrate` waits
for it.

*One seam around a step.* Middleware (`Pgflow(middleware=[…])`) runs around each attempt, in the task of its job: spans,
log context and users' own wrappers live there (runner.py).
"""

from pgflow.worker.supervisor import Worker

__all__ = ["Worker"]
