"""When a schedule fires: a cron expression in a time zone, or an interval. Pure: an instant gives the next one.

cronsim parses the expression and finds the matching times of a wall clock, as Debian's cron does. What a change of the
clock (DST) does to them is decided here, by cron's rules: cronsim's own steps over such a change lose matches in zones
that move by half an hour, and may go back in the hour that is repeated.


- An expression for certain times of day (neither its minute nor its hour begins with `*`) fires once for each matching
  time. A time that the clock skips fires when the clock has moved on; one that comes twice fires the first time.
- Every other expression fires whenever the wall clock matches: never in the hour that is skipped, and again in the hour
  that is repeated. So "0 * * * *" fires once in every real hour.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from pgflow.core.values.duration import MAX_DURATION, plain
from pgflow.core.values.query_args import refuse

__all__ = ["Cron", "Every", "Timing", "check_expression", "check_zone", "every", "instants", "parse_timing"]

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = {  # cronsim's names of the fields, and what each takes
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L (the last day) or LW (the last weekday)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 (0 and 7 are Sunday) or SUN-SAT, with #n (the nth of the month) or L (the last)",
}
MAX_LENGTH = 200
FORM = (
    'Give five fields, minute hour day-of-month month day-of-week ("0 9 * * mon"), six with seconds first, or @daily.'
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANY_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 -- a time of a wall clock, from which expressions are tried out
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
TRIED = 1_000  # matches of an expression that are compared to find the shortest time between two


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression on the wall clock of the time zone `tz`.

    Cron("0 9 * * mon", "Europe/Berlin").next(after)    # the first Monday, 9:00 in Berlin, after `after`
    """

    expression: str
    tz: str = "UTC"

    def next(self, after: datetime) -> datetime | None:
        """Return the first instant after an aware datetime, in UTC; None without one in the next 50 years."""
        zone = zone_of(self.tz)
        try:
            return (self._next_time if self._has_times else self._next_match)(after.astimezone(UTC), zone)
        except OverflowError:  # beyond the year 9999
            return None

    @property
    def shortest(self) -> timedelta:
        """The shortest time between two matches on a wall clock, as far as the first thousand show it."""
        times = islice(_matches(self._fields, ANY_TIME), TRIED)
        return min((later - earlier for earlier, later in pairwise(times)), default=MAX_DURATION)

    @property
    def words(self) -> str:
        """The expression in words, such as "At 09:00 on Monday through Friday"."""
        return str(CronSim(self._fields, ANY_TIME).explain())

    @property
    def _fields(self) -> str:
        return NICKNAMES.get(self.expression.lower(), self.expression)

    @property
    def _has_times(self) -> bool:
        fields = self._fields.split()
        return len(fields) == 5 and not fields[0].startswith("*") and not fields[1].startswith("*")

    def _next_time(self, after: datetime, zone: tzinfo) -> datetime | None:
        # `_instant_of` never goes back, so no time up to the wall clock's at `after` can give a later instant.
        for time in _matches(self._fields, _wall(after, zone)):
            instant = _instant_of(time, zone)
            if instant > after:
                return instant
        return None

    def _next_match(self, after: datetime, zone: tzinfo) -> datetime | None:
        begin, offset = after, _offset(after, zone)
        last = _wall(after, zone)
        while (time := next(_matches(self._fields, last), None)) is not None:
            instant = (time - offset).replace(tzinfo=UTC)
            change = _first_change(zone, begin, instant)
            if change is None:
                return instant
            begin, offset = change, _offset(change, zone)
            last = _wall(change, zone) - SECOND
        return None

    def __str__(self) -> str:
        return self.expression if self.tz == "UTC" else f"{self.expression} {self.tz}"


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed period, counted from 1970-01-01T00:00:00Z, so that all processes have the same instants.

    Every(timedelta(minutes=5)).next(after)    # the next full five minutes
    """

    period: timedelta

    def next(self, after: datetime) -> datetime | None:
        """Return the first instant after an aware datetime, in UTC."""
        try:
            return EPOCH + ((after - EPOCH) // self.period + 1) * self.period
        except OverflowError:
            return None

    @property
    def shortest(self) -> timedelta:
        """The time between two instants."""
        return self.period

    def __str__(self) -> str:
        return f"every {self.period}"


Timing: TypeAlias = Cron | Every


def every(period: timedelta) -> Every:
    """Return an interval for `schedule`, at least a second long. Raises `InvalidValue`.

    Its instants are counted from midnight UTC of 1970-01-01: `every(timedelta(minutes=5))` fires at :00, :05, :10.

        schedule(every(timedelta(minutes=5)), poll_mailbox)
    """
    if not isinstance(period, timedelta):
        refuse("every", period, "an interval is a timedelta", 'Write every(timedelta(minutes=5)), or "*/5 * * * *".')
    if not SECOND <= period <= MAX_DURATION:
        refuse("every", period, "an interval is from one second to 100 years", "Write every(timedelta(seconds=1)).")
    return Every(plain(period))


def parse_timing(given: Any, tz: Any = None) -> Timing:
    """Return a cron expression or an interval, checked. Raises `InvalidValue`, with the field that is wrong.

    parse_timing("0 9 * * mon", "Europe/Berlin")
    parse_timing("61 * * * *")    # InvalidValue: cron='61 * * * *' is refused: the minute '61' is not in 0-59
    """
    if isinstance(given, Every):
        if tz is not None:
            refuse("tz", tz, "an interval has no time zone", "Leave tz out, or give a cron expression.")
        return every(given.period)
    if isinstance(given, timedelta):
        return every(given)
    return Cron(check_expression(given), check_zone("UTC" if tz is None else tz))


def instants(timing: Timing, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the instants after `after`, up to and including `until`, in order.

    list(instants(Cron("@daily"), monday, friday))
    """
    instant = timing.next(after)
    while instant is not None and instant <= until:
        yield instant
        instant = timing.next(instant)


# -- expressions


def check_expression(given: Any) -> str:
    """Return a cron expression, with single blanks. Raises `InvalidValue` for one that can match no time."""
    if not isinstance(given, str):
        refuse("cron", given, "a cron expression is a string", FORM)
    expression = " ".join(given.split())
    if len(expression) > MAX_LENGTH:
        refuse("cron", f"{expression[:50]}…", f"an expression has at most {MAX_LENGTH} characters", FORM)
    if expression.startswith("@") and expression.lower() not in NICKNAMES:
        near = difflib.get_close_matches(expression.lower(), NICKNAMES, 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(NICKNAMES)}."
        refuse("cron", given, "there is no such nickname", hint)
    fields = NICKNAMES.get(expression.lower(), expression)
    try:
        matches = CronSim(fields, ANY_TIME)
    except CronSimError as error:
        refuse("cron", given, _reason(str(error), fields.split()), FORM)
    if next(matches, None) is None:
        refuse("cron", given, "no day of the next 50 years matches it", FORM)
    return expression


def _reason(message: str, given: list[str]) -> str:
    """Return what is wrong with an expression, from cronsim's message, which names the field only."""
    name = message.removeprefix("Bad ")
    if name not in FIELDS:
        return f"it has {len(given)} fields, not 5 or 6"
    value = given[list(FIELDS).index(name) - (len(given) == 5)]
    return f"the {name} {value!r} is not in {FIELDS[name]}, nor a list, range or step of these that occurs"


def _matches(fields: str, after: datetime) -> Iterator[datetime]:
    """Yield the times of a wall clock that match, after a naive datetime."""
    return CronSim(fields, after)


# -- time zones


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime"}  # that of the machine, which may differ between workers


def check_zone(given: Any) -> str:
    """Return the name of a time zone. Raises `InvalidValue`, with similar names, for an unknown one."""
    name = given.key if isinstance(given, ZoneInfo) else "UTC" if given is UTC else given
    if name == "UTC":
        return "UTC"
    if not isinstance(name, str):
        refuse("tz", given, "a time zone is given by its name", 'Write tz="Europe/Berlin".')
    # Not `ZoneInfo(name)`, which also takes files such as "right/UTC", and any case on some systems.
    if name not in _zone_names():
        refuse("tz", name, "there is no such time zone here", _similar_zones(name))
    return name


def _similar_zones(name: str) -> str:
    names = sorted(_zone_names())
    if not names:
        return "This machine has no time zones: install the system's tzdata, or `pip install tzdata`."
    wanted = name.lower()
    by_city = [each for each in names if wanted in (each.lower(), each.rpartition("/")[2].lower())]
    near = by_city or difflib.get_close_matches(name, names, 3)
    return f"Did you mean {' or '.join(near[:3])}?" if near else 'Give a name of the tz database: "Europe/Berlin".'


def zone_of(name: str) -> tzinfo:
    """Return a time zone by name. Raises `InvalidValue` where this machine does not know it."""
    return UTC if name == "UTC" else ZoneInfo(check_zone(name))


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _instant_of(time: datetime, zone: tzinfo) -> datetime:
    """Return when a wall clock shows `time`: the first time if it does twice, the end of the gap if it skips it."""
    instant = time.replace(tzinfo=zone).astimezone(UTC)
    if _wall(instant, zone) == time:
        return instant
    before = time.replace(tzinfo=zone, fold=1).astimezone(UTC)  # by the later offset: lies before the gap
    return _first_change(zone, before, instant) or instant


def _first_change(zone: tzinfo, begin: datetime, end: datetime) -> datetime | None:
    """Return the first instant in (begin, end] at which the offset is not that of `begin`, None without one.

    Two changes on one day that cancel each other are not found; there are none in the tz database since 1970.
    """
    if zone is UTC:
        return None
    offset = _offset(begin, zone)
    while begin < end:
        later = min(begin + DAY, end)
        if _offset(later, zone) != offset:
            return _bisected(zone, begin, later)
        begin = later
    return None


def _bisected(zone: tzinfo, begin: datetime, end: datetime) -> datetime:
    """Return the change of the offset in (begin, end], which is at a full second."""
    offset, low, high = _offset(begin, zone), 0, -((begin - end) // SECOND)
    start = begin.replace(microsecond=0)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(start + middle * SECOND, zone) == offset:
            low = middle
        else:
            high = middle
    return start + high * SECOND
