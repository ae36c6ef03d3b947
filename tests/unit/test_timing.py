"""The instants of cron expressions and intervals, compared with a search of every minute of the wall clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.core.definition.timing import Cron, Every, every, instants, parse_timing
from pgflow.errors import InvalidValue
from tests.cron_search import search

MINUTE = timedelta(minutes=1)
# Zones with DST of an hour, of half an hour, at midnight, on the southern hemisphere, without DST, and one that stops.
ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "UTC"),
    *("Africa/Casablanca", "Asia/Beirut", "Pacific/Apia"),
)


def changes(tz: str) -> Iterator[datetime]:
    """Yield the hours of 2011 and 2026 in which the clock of a zone changes."""
    zone = ZoneInfo(tz)
    for year in (2011, 2026):
        moment = datetime(year, 1, 1, tzinfo=UTC)
        while moment.year == year:
            if moment.astimezone(zone).utcoffset() != (moment + 60 * MINUTE).astimezone(zone).utcoffset():
                yield moment
            moment += 60 * MINUTE


CHANGES = [(tz, moment) for tz in ZONES for moment in changes(tz)]
NUMBERS = {"minute": (0, 59), "hour": (0, 4), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


@st.composite
def fields(draw: st.DrawFn, name: str) -> str:
    low, high = NUMBERS[name]
    number = st.integers(low, high)
    first, last = sorted((draw(number), draw(number)))
    single = ",".join(map(str, draw(st.lists(number, min_size=1, max_size=3, unique=True))))
    spans = [f"{first}-{last}", f"{first}-{last}/{draw(st.integers(1, 7))}"] if first < last else []
    return draw(st.sampled_from(["*", f"*/{draw(st.integers(1, 30))}", single, *spans]))


@st.composite
def expressions(draw: st.DrawFn) -> str:
    day, month, weekday = (draw(st.just("*") | fields(name)) for name in ("day", "month", "weekday"))
    return f"{draw(fields('minute'))} {draw(fields('hour'))} {day} {month} {weekday}"


@given(st.sampled_from(CHANGES), expressions())
def test_instants_around_a_change_of_the_clock_are_those_of_a_search_by_minutes(
    change: tuple[str, datetime], expression: str
) -> None:
    tz, moment = change
    begin, end = moment - timedelta(hours=4), moment + timedelta(hours=6)
    timing = Cron(expression, tz)
    assert list(instants(timing, begin, end)) == search(expression, tz, begin, end)


@given(st.sampled_from(CHANGES), expressions(), st.integers(0, 3600 * 10))
def test_the_next_instant_depends_on_the_moment_only(
    change: tuple[str, datetime], expression: str, seconds: int
) -> None:
    tz, moment = change
    begin, timing = moment - timedelta(hours=4), Cron(expression, tz)
    after = begin + timedelta(seconds=seconds)
    found = list(instants(timing, begin, after))
    assert all(earlier < later for earlier, later in pairwise(found))
    following = timing.next(after)
    assert following is None or following > after
    # It is the same, however one gets there: a restart, or a worker that was paused, changes nothing.
    if found:
        assert timing.next(found[-1]) == following


def local(expression: str, tz: str, begin: str, count: int) -> list[str]:
    """Return the next instants as the zone's clock shows them, with its offset."""
    after = datetime.fromisoformat(begin)
    found = islice(instants(Cron(expression, tz), after, after + timedelta(days=500)), count)
    return [each.astimezone(ZoneInfo(tz)).isoformat() for each in found]


def test_a_time_that_the_clock_skips_fires_when_it_has_moved_on_and_one_that_comes_twice_once() -> None:
    assert local("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert local("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # Two times in one gap are one instant; half an hour is skipped on Lord Howe Island; midnight in Santiago.
    assert local("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", 1) == ["2026-03-29T03:00:00+02:00"]
    assert local("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00Z", 1) == ["2026-10-04T02:30:00+11:00"]
    assert local("@daily", "America/Santiago", "2026-09-05T12:00Z", 1) == ["2026-09-06T01:00:00-03:00"]


def test_an_expression_for_every_hour_fires_once_in_each_real_hour() -> None:
    assert local("@hourly", "Europe/Berlin", "2026-03-28T23:30Z", 3) == [
        "2026-03-29T01:00:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T04:00:00+02:00",
    ]
    assert local("0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", 3) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_seconds_intervals_and_nicknames() -> None:
    begin = datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert Cron("*/20 * * * * *").next(begin) == datetime(2026, 1, 1, 0, 0, 20, tzinfo=UTC)
    assert Every(timedelta(seconds=90)).next(begin) == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert every(timedelta(days=1)).next(begin) == Cron("@DAILY").next(begin) == datetime(2026, 1, 2, tzinfo=UTC)
    assert Cron("@yearly").next(begin) == datetime(2027, 1, 1, tzinfo=UTC)
    assert Cron("0 0 29 2 mon#5").next(begin) is not None  # day-of-month or day-of-week, as in cron
    assert Cron("@daily").next(datetime.max.replace(tzinfo=UTC)) is None
    assert Every(timedelta(days=1)).next(datetime.max.replace(tzinfo=UTC)) is None
    assert Cron("*/5 9 * * *").shortest == 5 * MINUTE
    assert Cron("0 9 * * mon,tue").shortest == timedelta(days=1)


REFUSED = [
    ("61 * * * *", None, "cron='61 * * * *' is refused: the minute '61' is not in 0-59", "Give five fields"),
    ("* 24 * * *", None, "the hour '24'", "Give five fields"),
    ("* * 0 * *", None, "the day-of-month '0'", "Give five fields"),
    ("* * * 13 *", None, "the month '13'", "Give five fields"),
    ("* * * * fun", None, "the day-of-week 'fun'", "Give five fields"),
    ("60 * * * * *", None, "the second '60'", "Give five fields"),
    ("0 0 30 2 *", None, "the day-of-month '30'", "Give five fields"),
    ("* * * *", None, "it has 4 fields", "Give five fields"),
    ("", None, "it has 0 fields", "Give five fields"),
    ("0 0 */20 * 1L", None, "no day of the next 50 years matches it", "Give five fields"),
    ("1" * 300, None, "at most 200 characters", "Give five fields"),
    (7, None, "cron=7 is refused: a cron expression is a string", "Give five fields"),
    ("@dayly", None, "there is no such nickname", "Did you mean @daily?"),
    ("@reboot", None, "there is no such nickname", "@hourly"),
    ("@daily", "Europe/Berln", "tz='Europe/Berln' is refused: there is no such time zone", "Europe/Berlin"),
    ("@daily", "new_york", "there is no such time zone", "America/New_York"),
    ("@daily", "localtime", "there is no such time zone", ""),
    ("@daily", "../../etc/passwd", "there is no such time zone", ""),
    ("@daily", 3, "tz=3 is refused", "Europe/Berlin"),
    (timedelta(milliseconds=999), None, "from one second to 100 years", "every(timedelta(seconds=1))"),
    (timedelta(days=40_000), None, "from one second to 100 years", ""),
    (Every(timedelta(minutes=1)), "Europe/Berlin", "an interval has no time zone", "Leave tz out"),
]


@pytest.mark.parametrize(("when", "tz", "problem", "hint"), REFUSED)
def test_a_bad_expression_zone_or_interval_is_refused_with_the_field(
    when: object, tz: object, problem: str, hint: str
) -> None:
    with pytest.raises(InvalidValue) as refusal:
        parse_timing(when, tz)
    assert problem in str(refusal.value)
    assert hint in (refusal.value.hint or "")


@given(st.text(alphabet="0159*/-,#LWlw monSUN@²", max_size=25))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        timing = parse_timing(text)
    except InvalidValue:
        return
    assert timing.next(datetime(2026, 1, 1, tzinfo=UTC)) is not None
