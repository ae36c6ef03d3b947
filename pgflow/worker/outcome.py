"""What running a token came to, as values that nothing has acted on yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from pgflow.core.engine.attempt import Failing
from pgflow.worker.claimed_job import Signal, Token

__all__ = ["Erred", "Finished", "Outcome", "Rebuilt", "Released", "Snoozed", "Waits"]


@dataclass(frozen=True, slots=True)
class Finished:
    """The step completed with `event`. `output` is the JSON text to store and `value` what that text decodes to.

    `targets` is what a route chose (None: the event's declared targets); `failing` is the error of a route:
    the result is recorded and the instance fails. `stored` says that the result is recorded already, `signal` that it
    is a signal which ended the wait that takes `awaits`.
    """

    token: Token
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
    failing: Failing | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """The step returned `Async()`: it waits for one of the signals in `awaits`, or until `delay` is over.

    `end(signal)` gives the outcome where such a signal is there already.
    """

    token: Token
    awaits: Mapping[str, str]
    delay: timedelta | None
    timeout_event: str | None
    end: Callable[[Signal], Finished | Erred]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Erred:
    """The attempt failed. `reason` is text for people; `retry` False ends the step at once.

    `signal` is one whose payload the step refused: it goes with the failure, for the step would meet it again.
    `severed`: the connection was lost in whose transaction the step ran, so that it may not have been the step's fault.
    """

    token: Token
    reason: str
    type: str
    retry: bool = True
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    severed: bool = False
    signal: Signal | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The step asked to be run again after `delay`; the attempt does not count."""

    token: Token
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Released:
    """The step did not run, or not to its end: somebody else may take the token; the attempt does not count."""

    token: Token


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The instance is taken up again: every active step without a result gets a token."""

    token: Token


Outcome: TypeAlias = Finished | Waits | Erred | Snoozed | Released | Rebuilt
