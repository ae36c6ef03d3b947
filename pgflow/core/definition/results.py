"""What a step may return: it is done, it waits for a signal, it failed, or it wants to be called again later."""

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
    """The step is done: `event` says how it went, and so which way the workflow goes on.

    `event` is one of the step's declared events (a member of a string enum will do). `output` is any value that can
    be stored as JSON; it *replaces* the step's entry in `ctx.steps`. Left out, it is None where the step declares an
    optional type as its `output`, else `{}`; None is a value, stored as null. `metadata` is merged into the instance's
    runtime metadata, the latest step winning. Raises `InvalidValue` when the event is no
    string, `InvalidPayload` when the metadata is no mapping.

        return Ok("paid", {"receipt": "r-1"}, metadata={"amount": 42})
    """

    event: str
    output: Any = ABSENT
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.event) is not str:
            name = event_name(self.event)
            if not isinstance(name, str):
                raise InvalidValue(f"the event of an Ok is the name of an event, not {self.event!r}")
            object.__setattr__(self, "event", str.__str__(name))
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise InvalidPayload(f"the metadata of an Ok is a mapping, not {type(self.metadata).__name__}")


@dataclass(frozen=True, slots=True)
class Async:
    """The step has begun something that ends elsewhere: it waits, and a signal completes it.

    What it waits for, and for how long, is what the step's `parking()` says: by default a signal named like one of its
    events, without limit.

        return Async()    # later: OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
    """


@dataclass(frozen=True, slots=True)
class Error:
    """The step failed. It is tried again as its retry policy says, at once never again with `retry=False`.

    return Error("card expired", retry=False)
    """

    reason: str
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Snooze:
    """Call the step again after `delay`, without counting this as an attempt; 100 years at most. Raises `InvalidValue`.

    return Snooze(timedelta(minutes=5))    # the file is not there yet
    """

    delay: timedelta

    def __post_init__(self) -> None:
        if not is_duration(self.delay):
            raise InvalidValue(
                f"the delay of a Snooze is a timedelta of zero or more, and of 100 years at most, not {self.delay!r}"
            )


Result: TypeAlias = Ok | Async | Error | Snooze
