"""What running a job came to, as values that nothing has acted on yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from pgflow.core.engine.attempt import AttemptError
from pgflow.worker.claimed_job import ClaimedJob, Signal

__all__ = ["AttemptFailed", "Finished", "Outcome", "Parked", "Reactivated", "Released", "Snoozed"]


@dataclass(frozen=True, slots=True)
class Finished:
    """The step completed with `event`. `output` is the JSON text to store and `value` what that text decodes to.

    `targets` is what a route chose (None: the event's declared targets); `failing` is the error of a route:
    the result is recorded and the instance fails. `stored` says that the result is recorded already, `signal` that it
    is a signal which ended the wait that takes `awaits`.
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


@dataclass(frozen=True, slots=True)
class Parked:
    """The step returned `Async()`: it waits for one of the signals in `awaits`, or until `delay` is over.

    `end(signal)` gives the outcome where such a signal is there already.
    """

    job: ClaimedJob
    awaits: Mapping[str, str]
    delay: timedelta | None
    timeout_event: str | None
    end: Callable[[Signal], Finished | AttemptFailed]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt failed. `reason` is text for people; `retry` False ends the step at once.

    `signal` is one whose payload the step refused: it goes with the failure, for the step would meet it again.
    `connection_lost`: the step's transaction lost its connection, which may not be the step's fault.
    """

    job: ClaimedJob
    reason: str
    type: str
    retry: bool = True
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    connection_lost: bool = False
    signal: Signal | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The step asked to be run again after `delay`; the attempt does not count."""

    job: ClaimedJob
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Released:
    """The step did not run, or not to its end: somebody else may take the job; the attempt does not count."""

    job: ClaimedJob


@dataclass(frozen=True, slots=True)
class Reactivated:
    """The instance is taken up again: every active step without a result gets a job."""

    job: ClaimedJob


Outcome: TypeAlias = Finished | Parked | AttemptFailed | Snoozed | Released | Reactivated
