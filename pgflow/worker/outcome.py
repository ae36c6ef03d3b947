"""Outcomes of running a job: values, which `decide` turns into the rows to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from pgflow.core.engine.attempt import AttemptError
from pgflow.payloads.policy import StoredObject
from pgflow.worker.claimed_job import ClaimedJob, Signal
from pgflow.worker.claimed_task import ClaimedTask, HeldJob

__all__ = [
    "AnyOutcome",
    "AttemptFailed",
    "Completed",
    "Finished",
    "Outcome",
    "Parked",
    "Reactivated",
    "Released",
    "Snoozed",
    "TaskOutcome",
]

J_co = TypeVar("J_co", bound=HeldJob, covariant=True)

# Lost connections that do not count as attempts, 26 s in all: a step that always closes its own connection must fail.
MAX_UNCOUNTED_DISCONNECTS = 10


class Finished(NamedTuple):  # not a dataclass: one for each step, and made several times as fast
    """The step completed with `event`. `output` is the JSON text to store, `value` the decoded text.

    `targets` is the choice of a route (None: the event's declared targets); `failing` is the error of a route: the
    result is recorded and the instance fails. `stored`: the result was recorded before, without being applied.
    `signal` ended the wait for the signals in `awaits`; `by_timer`: its time was over. `stored_object` is the value of
    a large output, which the payload store must hold before the outcome is settled. `failed` is the error of the last
    attempt of a step that its policy passes over, by a transition or without `targets`, by skipping the branch.
    """

    job: ClaimedJob
    event: str
    output: str | None = None
    value: Any = None
    metadata: dict[str, Any] | None = None
    targets: tuple[str, ...] | None = None
    seconds: float = 0.0
    stored: bool = False
    signal: Signal | None = None
    awaits: Mapping[str, str] | None = None
    by_timer: bool = False
    failing: AttemptError | None = None
    stored_object: StoredObject | None = None
    failed: AttemptError | None = None


class Completed(NamedTuple):  # as `Finished`
    """The task completed; `output` is the JSON text to store."""

    job: ClaimedTask
    output: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Parked:
    """The step returned `Async()`: it waits for one of the signals in `awaits`, or for `delay`.

    `end(signal)` returns the outcome if such a signal is already in the mailbox.
    """

    job: ClaimedJob
    awaits: Mapping[str, str]
    delay: timedelta | None
    timeout_event: str | None
    end: Callable[[Signal], Finished | AttemptFailed[ClaimedJob]]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptFailed(Generic[J_co]):
    """The attempt failed. `reason` is text for people; with `retry` False there is no further attempt.

    `signal` has a payload that the step rejected. It is consumed, because a retry of the instance would find it again.
    `connection_lost`: the step's transaction lost its connection, which may not be the step's fault. `pause` is what it
    asked for. `is_fatal`: it fails the instance whatever the step's policy is.
    """

    job: J_co
    reason: str
    type: str
    retry: bool = True
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    connection_lost: bool = False
    signal: Signal | None = None
    pause: timedelta | None = None
    is_fatal: bool = False

    @property
    def error(self) -> AttemptError:
        """The error of the attempt."""
        return AttemptError(self.reason, self.type, self.retry, self.details, self.pause)

    @property
    def is_uncounted(self) -> bool:
        """Whether the attempt does not count: only its connection was lost, and not too often."""
        return self.connection_lost and sum("severed" in each for each in self.job.errors) < MAX_UNCOUNTED_DISCONNECTS

    @property
    def is_last(self) -> bool:
        """Whether no attempt follows."""
        return not self.is_uncounted and not (self.retry and self.job.attempt < self.job.max_attempts)


@dataclass(frozen=True, slots=True)
class Snoozed(Generic[J_co]):
    """The step or task runs again after `delay`; the attempt does not count. `began`: it has run."""

    job: J_co
    delay: timedelta
    began: bool = True


@dataclass(frozen=True, slots=True)
class Released(Generic[J_co]):
    """The job did not run, or not to its end: any worker may claim it; the attempt does not count."""

    job: J_co


@dataclass(frozen=True, slots=True)
class Reactivated:
    """The instance is reactivated: every active step without a result gets a job."""

    job: ClaimedJob


Outcome: TypeAlias = (
    Finished | Parked | AttemptFailed[ClaimedJob] | Snoozed[ClaimedJob] | Released[ClaimedJob] | Reactivated
)
TaskOutcome: TypeAlias = Completed | AttemptFailed[ClaimedTask] | Snoozed[ClaimedTask] | Released[ClaimedTask]
AnyOutcome: TypeAlias = (
    Outcome | TaskOutcome | AttemptFailed[HeldJob] | Snoozed[HeldJob] | Released[HeldJob]  # of whichever it is
)
