"""The results that a step may return: completed, waiting for a signal, failed, or to be called again later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from pgflow.core.values.absent import ABSENT
from pgflow.core.values.duration import is_duration
from pgflow.core.values.names import event_name
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["Async", "Error", "Ok", "Result", "Snooze"]


@dataclass(frozen=True, slots=True)
class Ok:
    """The step is completed with an event, which selects the transition to take.

    - `event`: one of the step's declared events, as a string or a member of an enum of strings.
    - `output`: any value that can be stored as JSON, up to the limit of the app (1 MiB); later steps read it as
      `ctx.steps[key]`. If it is left out, it is None for a step that declares an optional `output` type, else `{}`.
      None is stored as null.
    - `metadata`: a mapping merged into the instance's runtime metadata; a later step overwrites the same keys.

    Raises `InvalidValue` if the event is not a string, and `InvalidPayload` if the metadata is not a mapping.

        return Ok("paid", {"receipt": "r-1"}, metadata={"amount": 42})
    """

    event: str
    output: Any = ABSENT
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.event) is not str:
            name = event_name(self.event)
            if not isinstance(name, str):
                raise InvalidValue(f"Ok: event must be the name of an event, got {self.event!r}")
            object.__setattr__(self, "event", str.__str__(name))
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise InvalidPayload(f"Ok: metadata must be a mapping, got {type(self.metadata).__name__}")


@dataclass(frozen=True, slots=True)
class Async:
    """The step has started work that finishes elsewhere. It waits for a signal without holding a worker.

    The step's `parking()` returns the signals that end the wait and a timeout: by default a signal named like one of
    its events, and no timeout. The signal's payload becomes the step's output.

        return Async()    # later: OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
    """


@dataclass(frozen=True, slots=True)
class Error:
    """The attempt failed. The step is retried as its `Retry` policy allows, or never with `retry=False`.

    `reason` is text for people; it is stored with the instance. `retry_in` is the pause until the next attempt, instead
    of the policy's, from zero to 100 years (else `InvalidValue` is raised). An exception with an attribute `retry_in`
    or `retry_after`, a timedelta or a number of seconds, does the same.

        return Error("card expired", retry=False)
        return Error("rate limited", retry_in=timedelta(seconds=30))
    """

    reason: str
    retry: bool = True
    retry_in: timedelta | None = None

    def __post_init__(self) -> None:
        if self.retry_in is not None and not is_duration(self.retry_in):
            raise InvalidValue(f"Error: retry_in must be a timedelta from zero to 100 years, got {self.retry_in!r}")


@dataclass(frozen=True, slots=True)
class Snooze:
    """Call the step again after `delay`; the call does not count as an attempt.

    `delay` is a timedelta from zero to 100 years, else `InvalidValue` is raised.

        return Snooze(timedelta(minutes=5))    # the file does not exist yet
    """

    delay: timedelta

    def __post_init__(self) -> None:
        if not is_duration(self.delay):
            raise InvalidValue(f"Snooze: delay must be a timedelta from zero to 100 years, got {self.delay!r}")


Result: TypeAlias = Ok | Async | Error | Snooze
