"""Go on when a signal comes."""

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
    """Wait until a signal comes, then go on with the event "received"; its payload is this step's output.

    `event` is the signal's name, "received" when left out. With a `timeout` it goes on with "timeout" when none came in
    that time, which then needs a transition, too. A signal that was sent before the wait began ends it at once. Raises
    `DefinitionError`.

        paid = WaitForEvent("payment_confirmed", timeout=timedelta(days=3))
        paid: {"received": Ship, "timeout": CancelOrder}

        OrderFlow.resume("abc123", "payment_confirmed", {"amount": 3})
    """

    events = ("received",)
    event: str | None = None
    timeout: timedelta | None = None

    def __init__(self, event: str | None = None, timeout: timedelta | None = None) -> None:
        event, wrong = event_name(event), None
        if event is not None and not is_event(event):
            wrong = DefinitionError(
                f"WaitForEvent cannot wait for {event!r}: the name of a signal is a string of 1 to 100 characters, "
                "without white space or control characters"
            )
        if timeout is not None:
            try:
                timeout = check_duration("WaitForEvent", timeout)
            except DefinitionError as error:
                timeout, wrong = timedelta(1), wrong or error
        BaseModel.__init__(self, event=None if wrong else event, timeout=timeout)
        if wrong is not None:
            collect_or_raise(self, wrong)

    def emits(self) -> tuple[str, ...]:
        """Return "received", and "timeout" when it has one."""
        return ("received",) if self.timeout is None else ("received", "timeout")

    def execute(self, ctx: Context[Any]) -> Async:
        """Begin to wait."""
        return Async()

    def parking(self) -> Parking:
        """Return that the signal ends it, or its timeout."""
        timeout_event = None if self.timeout is None else "timeout"
        return Parking({self.event or "received": "received"}, self.timeout, timeout_event)
