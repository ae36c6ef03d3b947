"""The schedules: when each fires next, in words and on the day, what it started last, and whether it is paused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import BaseModel

from pgflow.core.definition.timing import Every, instants
from pgflow.core.models.schedule import ScheduleInfo
from pgflow.store import schedule
from pgflow.web.rendering.values import Value, value_of
from pgflow.web.rendering.words import duration
from pgflow.web.routing.page import Model, Nav, NoParams, Page, View

__all__ = ["PAGE", "Schedules"]

NEXT = 3
DAY = timedelta(days=1)
MOST_MARKS = 96  # of the next day; more cannot be distinguished
TICK = timedelta(hours=6)


class ScheduleRow(BaseModel):
    """A schedule.

    `words` is when, `expression` is the cron expression or the interval. `state` is active, paused, overdue,
    undeclared or ended. `next` are the next instants, also of a paused one. `day` are those of the next 24 hours, None
    if there are more than 96; `many` is how many there are.
    """

    name: str
    target: str
    kind: str
    words: str
    expression: str
    tz: str | None
    state: str
    overlap: str
    catch_up: str
    input: Value
    next: tuple[datetime, ...]
    day: tuple[datetime, ...] | None
    many: int
    last_at: datetime | None
    last_run: str | None
    last_error: str | None
    fired: int
    skipped: int
    missed: int
    paused_at: datetime | None
    paused_by: str | None
    declared_by: str | None

    @property
    def is_paused(self) -> bool:
        """Whether nothing fires until it is resumed."""
        return self.state == "paused"


class Schedules(Model):
    """All schedules, in the order of their names."""

    rows: tuple[ScheduleRow, ...]
    now: datetime

    def shares(self, row: ScheduleRow) -> list[float] | None:
        """Where the instants of the next day are, from 0 to 1; None if there are too many to distinguish."""
        return None if row.day is None else [(each - self.now) / DAY for each in row.day]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The hours to mark in the next day: where, and the text."""
        found = [(0.0, f"{self.now:%H:%M}")]
        first = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        for number in range(1, 9):
            at = first + number * TICK
            share = (at - self.now) / DAY
            if 0.1 < share < 0.98:
                found.append((share, f"{at:%H:%M}"))
        return found


async def load(view: View[NoParams]) -> Schedules:
    """Read the schedules."""
    now = datetime.now(UTC)
    settings = view.context.settings

    def shown(given: Any) -> Value:
        if given is None:
            return Value(state="absent")
        return value_of(json.dumps(given), None, settings.hidden_keys, shows_data=settings.shows_data)

    found = await view.read(schedule.list(view.schema))
    return Schedules(rows=tuple(_row(each, now, shown(each.input)) for each in found), now=now)


def _row(each: ScheduleInfo, now: datetime, given: Value) -> ScheduleRow:
    timing = each.timing
    coming = list(islice(instants(timing, now, now + DAY), MOST_MARKS + 1))
    following = tuple(islice(instants(timing, now, datetime.max.replace(tzinfo=UTC)), NEXT))
    is_dense = len(coming) > MOST_MARKS
    many = int(DAY / timing.shortest) if is_dense else len(coming)
    if isinstance(timing, Every):
        words, expression, tz = f"Every {duration(timing.period)}", str(timing), None
    else:
        words, expression, tz = timing.words, timing.expression, timing.tz
    return ScheduleRow(
        name=each.name,
        target=each.target,
        kind=each.kind,
        words=words,
        expression=expression,
        tz=tz,
        state=each.state,
        overlap=each.overlap,
        catch_up=each.catch_up,
        input=given,
        next=following,
        day=None if is_dense else tuple(coming),
        many=many,
        last_at=each.last_at,
        last_run=None if each.last_run is None else str(each.last_run),
        last_error=None if each.last_error is None else str(each.last_error.get("reason", "")),
        fired=each.fired,
        skipped=each.skipped,
        missed=each.missed,
        paused_at=each.paused_at,
        paused_by=each.paused_by,
        declared_by=each.declared_by,
    )


PAGE = Page("schedules", "/schedules", "Schedules", Schedules, load, nav=Nav("Schedules", "s", 6))
