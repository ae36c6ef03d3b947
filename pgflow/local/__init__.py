"""Run workflows in memory, without a database: for prototypes and for unit tests of whole workflows.

Floor 3. The same classes, the same core and the same read models as on PostgreSQL; `tests/stacks` runs one suite
against both. What differs is only who carries the core's commands out:

    your call ─► local ─► ledger ─► conductor ─► core's advance ─► run (tokens) ─► storage
                                        ▲                             │
                                        └── runner: a step ends     ◄─┤
                                            alarms: time is up      ◄─┘
                                        └─► report ─► lock ─► telemetry, once the lock is let go

Its decisions:

*State under one lock, steps outside it.* A call of yours changes an instance under a lock, in your own thread, and the
steps that follow run on an event loop in a thread of its own (sync ones in a pool of threads). So a call never waits
for a step, and a step may itself start, resume or cancel.

*JSON all the way.* Inputs, outputs, payloads and metadata pass the same door as on PostgreSQL; a step sees what it
would see there.

*Whatever happened is put into the storage at once*, as copies. A new `Local` on the same storage takes up what was
under way, as a worker does after a restart. The storage is memory: it lives as long as the process.

*Telemetry is noted under the lock and told outside it*, by one thread at a time and so in order (lock.py).

*Time can be moved.* `advance_time` lets a day pass at once, each timer in its turn.

What it does not have: transactions (`conn=` is refused, and workflows with transactional steps are unless you allow
them with `ctx.conn` None), queues, priorities, other processes.
"""

from pgflow.local.local import Local
from pgflow.local.storage import Storage

__all__ = ["Local", "Storage"]
