"""The worker: claim tokens in batches, run their steps, and settle what they came to in one round trip.

Floor 3. The data goes one way, and each module is one station of it:

    claim ─► held_jobs.take_in ─► lane ─► runner ─► outcome ─► decide ─► settler.statement ─► settle ─► settler.adopt
             (token.py: what                      (a value)   (pure)                               (tokens that go on
              is known)                                                                             stay with us)

Its decisions:

*One loop, one connection, one statement for everything that happened.* Outcomes collect while a settle is under
way; the next one takes them all, and claims the next tokens in the same round trip and commit (claimer.py). No
timer delays a lone step.

*Decide on what is known, write only if it is still so.* A decision is made in memory on a revision of the instance; the
settle statement locks and compares. So nothing is locked while Python thinks, no worker waits for another, and a
decision that came too late is folded in later by an advance token. A solo token's owner needs neither lock nor
instance.

*A claim costs what it takes.* Beside a transaction that stays open, what is dead piles up where claims begin. Where one
was slow, the next ones begin at the queue's floor, and a look below it is made in a small share of the time
(watermark.py).

*Whoever lost the lease has no say.* Every row that a settle writes needs its token to be this worker's still, in this
attempt, at this step (the fence). A worker whose lease has ended takes a new identity and forgets what it held.

*What may kill its worker runs alone.* A token with which two workers were lost waits until nothing else is held
here, and nothing is claimed meanwhile (held_jobs.py; sql/README.md says why that finds the cause).

*The heart beats elsewhere.* A thread and a connection of its own renew the lease, so that no step can starve it
(heart.py); where a step keeps even Python's global lock, a process does (pulse.py).

*A run leaves nothing behind.* Connections, threads, locks of the event loop and what is held belong to one call of
`run`, which makes them new each time; the worker object itself has only its settings and counters. So it can run again
after a failed start, a drain or a cancellation, also in another event loop (supervisor.py).

*A step's child is not a worker.* A step may fork. A child that returns from the step ends there (`pgflow.process`), and
the heart and the process for heartbeats ignore children, so each identity and each lease has one process.

*Who will be too old makes way.* Along with each sweep goes a look at the ledger of migrations. When one is announced
that breaks this code, the worker takes nothing more, finishes what it runs and ends; store/migrate.py waits for it.
"""

from pgflow.worker.supervisor import Worker

__all__ = ["Worker"]
