"""The instants of a cron expression, found by looking at every minute of a wall clock: to compare, without cronsim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

__all__ = ["search", "search_all"]

MINUTE = timedelta(minutes=1)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Expression:
    """An expression of five fields with numbers, names of days, `*`, lists, ranges and steps."""

    def __init__(self, text: str) -> None:
        fields = text.split()
        limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            values(field, *each) for field, each in zip(fields, limits, strict=True)
        )
        self.needs_both = fields[2].startswith("*") or fields[4].startswith("*")
        self.has_times = not fields[0].startswith("*") and not fields[1].startswith("*")

    def matches(self, wall: datetime) -> bool:
        """Whether a wall clock shows a time that matches."""
        if wall.minute not in self.minutes or wall.hour not in self.hours or wall.month not in self.months:
            return False
        of_month, of_week = wall.day in self.days, bool({wall.isoweekday(), wall.isoweekday() % 7} & self.weekdays)
        return (of_month and of_week) if self.needs_both else (of_month or of_week)


def values(field: str, low: int, high: int) -> set[int]:
    """Return the numbers that a field matches."""
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            first_text, _, last_text = span.partition("-")
            first = DAYS.index(first_text) if first_text in DAYS else int(first_text)
            last = int(last_text) if last_text else high if step else first
        found.update(range(first, last + 1, int(step or 1)))
    return found


def minutes_of(tz: str, begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, list[datetime]]]:
    """Yield each minute, what the clock of a zone shows, and the times that it has passed since the minute before.

    These are several where the clock skips some, and none while it repeats some.
    """
    zone = ZoneInfo(tz)
    instant = begin.replace(second=0, microsecond=0) - timedelta(hours=26)  # Samoa once skipped a day
    latest = instant.astimezone(zone).replace(tzinfo=None)
    while instant <= end:
        wall = instant.astimezone(zone).replace(tzinfo=None)
        passed = []
        while latest < wall:
            latest += MINUTE
            passed.append(latest)
        yield instant, wall, passed
        instant += MINUTE


def search_all(expressions: Mapping[str, str], tz: str, begin: datetime, end: datetime) -> dict[str, list[datetime]]:
    """Return the instants in (begin, end] of several expressions, by name."""
    parsed = {name: Expression(text) for name, text in expressions.items()}
    found: dict[str, list[datetime]] = {name: [] for name in parsed}
    for instant, wall, passed in minutes_of(tz, begin, end):
        if begin < instant:
            for name, each in parsed.items():
                if any(map(each.matches, passed)) if each.has_times else each.matches(wall):
                    found[name].append(instant)
    return found


def search(expression: str, tz: str, begin: datetime, end: datetime) -> list[datetime]:
    """Return the instants of one expression."""
    return search_all({"": expression}, tz, begin, end)[""]
