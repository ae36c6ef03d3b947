"""Telemetry: what happens to instances, told as frozen events to whoever attached a handler.

Floor 1. The engine knows nothing of logs, metrics or traces: it emits, and adapters listen.

    worker, local ─► instance_events.py ─► emit.py ─► bus.py ─► your handler · log.py · metrics.py
    client ──────────────────────────┘

Its decisions:

*Told when it is true.* An event is emitted after the commit that made it true, by the worker that settled it; what the
fence refused is never told. Three are exceptions by nature: `step start` (a step that begins is not written), `workflow
start` (told with its first step), and a client call inside the caller's own transaction, which may yet roll back and so
says `in_transaction`. An event is told at most once: a worker that dies right after its commit, or never
hears that it was one, tells nobody. For counts that must be exact, ask the database.

*The same in memory.* A `Local` tells the same events, once the change is in its storage and outside of its lock, so
that a handler may call whatever it likes. What a call of yours brings about is told before the call returns, unless
another thread is telling just then: each instance is told in order. `runner` says which stack it was: "worker" or
"local".

*Who is interrupted is silent.* Where an instance is cancelled or fails, or a worker loses its lease or gives a step
back, while a step runs, what that step comes to is dropped: its `step start` has no end. Whoever pairs the two closes
what is open at the instance's end, `workflow cancel` included, which the process that cancels tells.

*Free when nobody listens.* The hot path asks one dict whether it is empty. Handlers run where the event happens, on the
event loop of the worker or `Local` for most: they are to be quick, and hand long work over.

*A handler cannot break a step.* What it raises is logged, once a minute for each handler, and it stays attached.

*Units.* Durations are seconds (float), None where they are not known; `system_time` is the wall clock in nanoseconds
since the epoch. A workflow's duration counts from its start call, by the database's clock.

The shape (names as tuples, measurements apart from metadata, handlers by id) is that of Erlang's `telemetry`.

    from pgflow import telemetry

    def tell(event: telemetry.Event, config: object) -> None:
        print(event.metadata["instance_id"], event.measurements["duration"])

    telemetry.attach("tell", [telemetry.WORKFLOW_STOP], tell)
"""

from pgflow.telemetry.bus import Event, Handler, attach, attached, detach
from pgflow.telemetry.emit import InstanceRef
from pgflow.telemetry.log import LOG_HANDLER, attach_log_handler, detach_log_handler
from pgflow.telemetry.metrics import Collector, Distribution, Metric, metrics
from pgflow.telemetry.names import (
    ENGINE_ADVANCE,
    RUNNER_INIT,
    RUNNER_RESCUE,
    SEED_EVENTS,
    STEP_ASYNC,
    STEP_EXCEPTION,
    STEP_RESUME,
    STEP_RETRY,
    STEP_SNOOZE,
    STEP_START,
    STEP_STOP,
    WORKFLOW_CANCEL,
    WORKFLOW_EXCEPTION,
    WORKFLOW_RETRY,
    WORKFLOW_SIGNAL,
    WORKFLOW_START,
    WORKFLOW_STOP,
    WORKFLOW_TRANSITION,
    Name,
    events,
)

__all__ = [
    "ENGINE_ADVANCE",
    "LOG_HANDLER",
    "RUNNER_INIT",
    "RUNNER_RESCUE",
    "SEED_EVENTS",
    "STEP_ASYNC",
    "STEP_EXCEPTION",
    "STEP_RESUME",
    "STEP_RETRY",
    "STEP_SNOOZE",
    "STEP_START",
    "STEP_STOP",
    "WORKFLOW_CANCEL",
    "WORKFLOW_EXCEPTION",
    "WORKFLOW_RETRY",
    "WORKFLOW_SIGNAL",
    "WORKFLOW_START",
    "WORKFLOW_STOP",
    "WORKFLOW_TRANSITION",
    "Collector",
    "Distribution",
    "Event",
    "Handler",
    "InstanceRef",
    "Metric",
    "Name",
    "attach",
    "attach_log_handler",
    "attached",
    "detach",
    "detach_log_handler",
    "events",
    "metrics",
]
