"""A durable timer."""

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
    """Wait for a duration, then complete with the event "timeout". The wait survives restarts and holds no worker.

    The duration is a timedelta, or the sum of `days`, `hours`, `minutes` and `seconds`: greater than zero, up to 100
    years, else `DefinitionError` is raised. A signal "timeout" ends the wait early.

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
        problem = None
        try:
            if duration is not None and any(parts.values()):
                raise DefinitionError("Wait: give a timedelta or days, hours, minutes and seconds, not both")
            duration = check_duration("Wait", timedelta(**parts) if duration is None else duration)
        except DefinitionError as error:
            duration, problem = timedelta(1), error
        BaseModel.__init__(self, duration=duration)
        if problem is not None:
            collect_or_raise(self, problem)

    def execute(self, ctx: Context[Any]) -> Async:
        """Start to wait."""
        return Async()

    def parking(self) -> Parking:
        """Return a wait that its timer ends, or a signal "timeout"."""
        return Parking({"timeout": "timeout"}, self.duration, "timeout")
