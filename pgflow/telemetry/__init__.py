"""Telemetry: frozen events about instances and tasks, delivered to attached handlers.

The engine emits events and knows no logs, metrics or traces; adapters attach handlers for those.

    worker, local ─► instance_events.py ─► emit.py ─► bus.py ─► your handler · log.py · metrics.py
    client ──────────────────────────┘

*After the commit.* An event is emitted after the commit of the change it reports, by the worker that settled it; a
write that fencing refused emits none. There are three exceptions: `step start` (the start of a step is not written),
`workflow start` (emitted with its first step), and a client call inside the caller's transaction, which may still roll
back and therefore has `in_transaction`. An event is emitted at most once: a worker that dies right after a commit, or
loses the connection before it learns of the commit, emits nothing. For exact counts, query the database.

*The same in memory.* A `Local` emits the same events once the change is in its storage, outside of its lock, so that a
handler may make any call. The events of a call are emitted before it returns, unless another thread is emitting at
that moment; the events of one instance are always in order. `runner` is "worker" or "local".

*An interrupted attempt emits no stop event.* If an instance is cancelled or fails, or a worker loses its lease or
releases a step, while the step runs, its result is dropped and its `step start` has no counterpart. A handler that
pairs the two has to close open steps when the instance ends, also with `workflow cancel`, which the cancelling process
emits.

*Free without handlers.* The hot path only checks whether a dict is empty. Handlers run where the event happens, mostly
on the event loop of the worker or `Local`: they must be fast, and hand long work to another thread.

*A handler cannot fail a step.* Its exceptions are logged, at most once a minute, and it stays attached.

*Units.* Durations are seconds (float), None if unknown. `system_time` is the wall clock in nanoseconds since the epoch.
A workflow's duration starts with its start call, by the database clock.

The design (names as tuples, measurements separate from metadata, handlers by id) follows Erlang's `telemetry`.

    from pgflow import telemetry

    def report(event: telemetry.Event, config: object) -> None:
        print(event.metadata["instance_id"], event.measurements["duration"])

    telemetry.attach("report", [telemetry.WORKFLOW_STOP], report)
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
    TASK_CANCEL,
    TASK_ENQUEUE,
    TASK_EXCEPTION,
    TASK_RETRY,
    TASK_SNOOZE,
    TASK_START,
    TASK_STOP,
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
    "TASK_CANCEL",
    "TASK_ENQUEUE",
    "TASK_EXCEPTION",
    "TASK_RETRY",
    "TASK_SNOOZE",
    "TASK_START",
    "TASK_STOP",
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
