"""A wait for a signal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Async
from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.definition.step import Parking, Step
from pgflow.core.values.names import event_name, is_event
from pgflow.errors import DefinitionError
from pgflow.steps.duration import check_duration

__all__ = ["WaitForEvent"]


class WaitForEvent(Step):
    """Wait for a signal, then complete with the event "received" and the signal's payload as output.

    `event` is the name of the signal, by default "received". With a `timeout`, a timedelta up to 100 years, the step
    completes with the event "timeout" if no signal arrives in time; that event then needs a transition, too. A signal
    that was sent before the wait ends it immediately. Raises `DefinitionError` for an invalid name or timeout.

        paid = WaitForEvent("payment_confirmed", timeout=timedelta(days=3))
        paid: {"received": Ship, "timeout": CancelOrder}

        OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
    """

    events = ("received",)
    event: str | None = None
    timeout: timedelta | None = None

    def __init__(self, event: str | None = None, timeout: timedelta | None = None) -> None:
        event, problem = event_name(event), None
        if event is not None and not is_event(event):
            problem = DefinitionError(
                f"WaitForEvent cannot wait for {event!r}: the name of a signal must be a string of 1 to 100 "
                "characters, without white space or control characters"
            )
        if timeout is not None:
            try:
                timeout = check_duration("WaitForEvent", timeout)
            except DefinitionError as error:
                timeout, problem = timedelta(1), problem or error
        BaseModel.__init__(self, event=None if problem else event, timeout=timeout)
        if problem is not None:
            collect_or_raise(self, problem)

    def emits(self) -> tuple[str, ...]:
        """Return "received", and "timeout" if it has a timeout."""
        return ("received",) if self.timeout is None else ("received", "timeout")

    def execute(self, ctx: Context[Any]) -> Async:
        """Start to wait."""
        return Async()

    def parking(self) -> Parking:
        """Return a wait that the signal ends, or the timeout."""
        timeout_event = None if self.timeout is None else "timeout"
        return Parking({self.event or "received": "received"}, self.timeout, timeout_event)
