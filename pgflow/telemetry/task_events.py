"""One function for each event of a task; the same for worker, client and `Local`. Without a handler it does nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgflow.telemetry import names
from pgflow.telemetry.bus import deliver, handlers_by_event

__all__ = [
    "TaskRef",
    "task_cancel",
    "task_enqueue",
    "task_exception",
    "task_retry",
    "task_snooze",
    "task_start",
    "task_stop",
]


@dataclass(frozen=True, slots=True)
class TaskRef:
    """The execution of a task that an event is about.

    `task` is the task's name, None if the caller gave only the `job`'s id. `attempt` is the number of the attempt, from
    1. `queue` and `worker` (its id) are where it runs; both are None in memory. `caller` is the `telemetry=` of its
    enqueue, `runner` is "worker" or "local".
    """

    job: int | None
    task: str | None
    attempt: int | None = None
    queue: str | None = None
    worker: int | None = None
    caller: Mapping[str, Any] = field(default_factory=dict)
    runner: str = "worker"

    def metadata(self, **own: Any) -> dict[str, Any]:
        """Return the metadata of an event. The caller's items never overwrite pgflow's."""
        return {**self.caller, "job": self.job, "task": self.task, **own}

    def of_attempt(self, **own: Any) -> dict[str, Any]:
        """Return the metadata of an event about an attempt."""
        return self.metadata(attempt=self.attempt, queue=self.queue, worker=self.worker, runner=self.runner, **own)


def task_enqueue(task: str, jobs: Sequence[int | None], *, in_transaction: bool) -> None:
    """A client of this process enqueued a task, once for each of `jobs`; None: skipped, for its key was taken."""
    if names.TASK_ENQUEUE in handlers_by_event:
        metadata = {"task": task, "jobs": tuple(jobs), "in_transaction": in_transaction}
        deliver(names.TASK_ENQUEUE, {"system_time": time.time_ns(), "jobs_count": len(jobs)}, metadata)


def task_start(subject: TaskRef) -> None:
    """An attempt of a task starts."""
    if names.TASK_START in handlers_by_event:
        deliver(names.TASK_START, {"system_time": time.time_ns()}, subject.of_attempt())


def task_stop(subject: TaskRef, *, duration: float | None, age: float | None) -> None:
    """A task is completed; `duration` is that of its last attempt, `age` the time since it was enqueued, in seconds."""
    if names.TASK_STOP in handlers_by_event:
        deliver(names.TASK_STOP, {"duration": duration, "age": age}, subject.of_attempt(status="completed"))


def task_exception(
    subject: TaskRef,
    *,
    duration: float | None,
    kind: str,
    reason: str,
    stacktrace: str | None,
    max_attempts: int,
    will_retry: bool,
) -> None:
    """An attempt of a task failed, the last one unless `will_retry`; `stacktrace` is None for a returned `Error`."""
    if names.TASK_EXCEPTION in handlers_by_event:
        metadata = subject.of_attempt(
            kind=kind, reason=reason, stacktrace=stacktrace, max_attempts=max_attempts, will_retry=will_retry
        )
        deliver(names.TASK_EXCEPTION, {"duration": duration}, metadata)


def task_snooze(subject: TaskRef, *, delay: float) -> None:
    """A task returned `Snooze`; it runs again after `delay` seconds."""
    if names.TASK_SNOOZE in handlers_by_event:
        deliver(names.TASK_SNOOZE, {"system_time": time.time_ns(), "delay": delay}, subject.of_attempt())


def task_cancel(subject: TaskRef, *, reason: str | None, in_transaction: bool) -> None:
    """A client of this process cancelled a task."""
    if names.TASK_CANCEL in handlers_by_event:
        metadata = subject.metadata(status="cancelled", reason=reason, in_transaction=in_transaction)
        deliver(names.TASK_CANCEL, {"system_time": time.time_ns()}, metadata)


def task_retry(subject: TaskRef, *, in_transaction: bool) -> None:
    """A client of this process retried a task."""
    if names.TASK_RETRY in handlers_by_event:
        metadata = subject.metadata(in_transaction=in_transaction)
        deliver(names.TASK_RETRY, {"system_time": time.time_ns()}, metadata)
