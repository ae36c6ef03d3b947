"""Run workflows in memory, without a database: for prototypes, and for unit tests of whole workflows.

`Local` is a client like `Pgflow`, with the same workflow classes, core and read models; `tests/stacks` runs one suite
against both. Only its backend differs:

    your call ─► client: command ─► MemoryBackend ─► Scheduler ─► core: advance ─► jobs ─► Storage
                                                        ▲                          │
                                                        ├── Runner: a step ends  ◄─┤
                                                        ├── Timers: a job is due ◄─┘
                                                        └─► Report ─► DeferringLock ─► telemetry

local                   the client, with its virtual clock: drain, settle, advance_time
backend                 commands as changes of instances
instances               the owner of a storage; finds active and stored instances
scheduler, live         the active instances, and their jobs
outcomes                what the outcome of a step or the end of a wait does to an instance
runner, loop            steps on an event loop and in threads
tasks, local_task       jobs of tasks; task_backend has the commands on them
schedules               schedules on the virtual clock
timers, clock           due times, and virtual time
mailbox, waiters        signals of an instance; callers that wait for a condition
storage, write_through  instances in memory, and in a storage of yours
report, lock            telemetry, emitted after the lock is released

What it does not have, and never will:

- transactions: `conn=` is refused, and so are workflows with transactional steps, unless you allow them to run with
  `ctx.conn` None;
- an idempotency store: `idempotency_key=` is refused;
- pruning: instances live as long as their storage, and `prune` is refused;
- limits, and queues with a concurrency of their own: `threads` bounds the sync steps, and every queue is served;
- priorities: `priority=` is accepted, as a workflow's options are, and orders nothing;
- other processes: no workers, leases or rescue.

Decisions, and why.

*State under one lock, steps outside it.* A call changes an instance under a lock, in the caller's thread; the steps
that follow run on an event loop in a thread of its own (sync ones in a pool). So no call waits for a step, and a step
may start, resume or cancel instances itself.

*JSON everywhere.* Inputs, outputs, payloads and metadata are encoded as on PostgreSQL, so a step sees what it would see
there.

*Every change is written to the storage at once*, as a copy. A new `Local` on the same storage continues the active
instances, as a worker does after a restart. `Storage` is memory; a class of yours with the methods of `InstanceStorage`
may store instances anywhere (pgflow/docs/storage.md).

*Time is virtual.* `advance_time` moves the clock a day at once, timer by timer.
"""

from pgflow.client.storage import InstanceStorage
from pgflow.local.local import Local
from pgflow.local.storage import Storage, select

__all__ = ["InstanceStorage", "Local", "Storage", "select"]
