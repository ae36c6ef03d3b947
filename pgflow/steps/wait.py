"""Go on after a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from pgflow.core.definition.context import Context
from pgflow.core.definition.results import Async
from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.definition.step import Parking, Step
from pgflow.errors import DefinitionError
from pgflow.steps.duration import check_duration

__all__ = ["Wait"]


class Wait(Step):
    """Wait for a duration, durably, then go on with the event "timeout". No worker is held meanwhile.

    The duration is a timedelta, or a sum of `days`, `hours`, `minutes` and `seconds`; more than nothing, and a hundred
    years at most. A signal "timeout" ends the wait early. Raises `DefinitionError`.

        charge: {"declined": Wait(timedelta(hours=1)).named("cool_off")}
        Wait(days=2, hours=12)
    """

    events = ("timeout",)
    duration: timedelta

    def __init__(
        self,
        duration: timedelta | None = None,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        parts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        wrong = None
        try:
            if duration is not None and any(parts.values()):
                raise DefinitionError("Wait: give a timedelta or days, hours, minutes and seconds, not both")
            duration = check_duration("Wait", timedelta(**parts) if duration is None else duration)
        except DefinitionError as error:
            duration, wrong = timedelta(1), error
        BaseModel.__init__(self, duration=duration)
        if wrong is not None:
            collect_or_raise(self, wrong)

    def execute(self, ctx: Context[Any]) -> Async:
        """Begin to wait."""
        return Async()

    def parking(self) -> Parking:
        """Return that its own timer ends it."""
        return Parking({"timeout": "timeout"}, self.duration, "timeout")
