"""Which instants of a schedule are started: catch-up and overlap, jitter, and what a schedule refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow import Context, Done, Ok, Pgflow, Schedule, Unique, Workflow, every, schedule, step
from pgflow.core.definition.timing import Cron, Every, instants
from pgflow.core.engine.firing import GRACE, MAX_STARTS, Firing, LastRun, decide
from pgflow.core.models.schedule import CatchUp, Overlap, ScheduleSpec
from pgflow.errors import DefinitionError, InvalidInput, InvalidValue, PgflowError

HOURLY = Cron("@hourly")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def hours(*numbers: int) -> tuple[datetime, ...]:
    return tuple(NOON + number * HOUR for number in numbers)


def after(outage: timedelta, overlap: Overlap, catch_up: CatchUp, last: LastRun | None = None) -> Firing:
    """Return the decision at the end of an outage that began right after noon was handled."""
    return decide(HOURLY, overlap, catch_up, handled=NOON, now=NOON + outage, last=last)


# After an outage of three and a half hours, one, two and three o'clock were missed; then those at 3:00 exactly on time.
TABLE = [
    ("skip", "none", (), 3),
    ("skip", "last", (3,), 2),
    ("skip", "all", (1,), 0),  # the others follow one after the other
    ("queue", "none", (), 3),
    ("queue", "last", (3,), 2),
    ("queue", "all", (1,), 0),
    ("cancel_old", "none", (), 3),
    ("cancel_old", "last", (3,), 2),
    ("cancel_old", "all", (3,), 0),  # each would cancel the one before
    ("allow", "none", (), 3),
    ("allow", "last", (3,), 2),
    ("allow", "all", (1, 2, 3), 0),
]


@pytest.mark.parametrize(("overlap", "catch_up", "started", "missed"), TABLE)
def test_catch_up_decides_which_missed_instants_start(
    overlap: Overlap, catch_up: CatchUp, started: tuple[int, ...], missed: int
) -> None:
    firing = after(3.5 * HOUR, overlap, catch_up)
    assert (firing.starts, firing.missed) == (hours(*started), missed)
    on_time = after(3 * HOUR + SECOND, overlap, catch_up)
    assert on_time.starts == hours(*started) or on_time.starts == hours(3)
    assert on_time.missed == (0 if catch_up == "all" else 2)


def test_the_table_is_complete() -> None:
    assert {row[:2] for row in TABLE} == {(o, c) for o in get_args(Overlap) for c in get_args(CatchUp)}


@pytest.mark.parametrize("catch_up", get_args(CatchUp))
def test_an_instant_at_which_the_last_run_is_active(catch_up: CatchUp) -> None:
    active = LastRun(NOON)
    skipped = after(HOUR, "skip", catch_up, active)
    assert (skipped.starts, skipped.skipped, skipped.handled, skipped.next_at) == ((), 1, *hours(1, 2))
    queued = after(HOUR, "queue", catch_up, active)
    assert (queued.starts, queued.skipped, queued.handled, queued.next_at) == ((), 0, NOON, *hours(1))
    cancelled = after(HOUR, "cancel_old", catch_up, active)
    assert (cancelled.starts, cancelled.cancels_last) == (hours(1), True)
    allowed = after(HOUR, "allow", catch_up, active)
    assert (allowed.starts, allowed.cancels_last) == (hours(1), False)


@pytest.mark.parametrize("catch_up", get_args(CatchUp))
def test_queued_instants_are_not_missed_and_start_one_after_the_other(catch_up: CatchUp) -> None:
    ended = LastRun(NOON, NOON + 2.5 * HOUR)
    first = after(2.6 * HOUR, "queue", catch_up, ended)
    assert (first.starts, first.handled, first.next_at, first.missed) == (hours(1), *hours(1, 2), 0)
    # The run of one o'clock starts late, and until it has ended the next one waits.
    running = LastRun(NOON + 2.6 * HOUR)
    state: dict[str, Any] = {"handled": first.handled, "queued_until": first.queued_until}
    waiting = decide(HOURLY, "queue", catch_up, now=NOON + 2.7 * HOUR, last=running, **state)
    assert (waiting.handled, waiting.next_at) == hours(1, 2)
    over = LastRun(running.started_at, NOON + 2.8 * HOUR)
    second = decide(HOURLY, "queue", catch_up, now=NOON + 2.9 * HOUR, last=over, **state)
    assert (second.starts, second.missed) == (hours(2), 0)


def test_a_skipped_instant_is_one_at_which_the_last_run_was_active_even_if_it_has_ended_since() -> None:
    ended = LastRun(NOON, NOON + HOUR + SECOND)
    firing = after(HOUR + 2 * SECOND, "skip", "all", ended)
    assert (firing.starts, firing.skipped) == ((), 1)
    later = after(2 * HOUR, "skip", "all", ended)
    assert (later.starts, later.skipped) == (hours(2), 1)


def test_nothing_fires_before_its_time_or_when_the_clock_was_set_back() -> None:
    early = after(HOUR - timedelta(microseconds=1), "allow", "all")
    assert (early.starts, early.handled, early.next_at) == ((), NOON, *hours(1))
    back = decide(HOURLY, "allow", "all", handled=NOON, now=NOON - 30 * HOUR, last=None)
    assert (back.starts, back.handled, back.next_at) == ((), NOON, *hours(1))


def test_a_long_outage_is_passed_over_without_reading_all_that_was_missed() -> None:
    year = timedelta(days=365)
    per_second = Every(SECOND)
    for catch_up in ("none", "last"):
        firing = decide(per_second, "allow", catch_up, handled=NOON, now=NOON + year, last=None)
        assert (
            firing.starts == tuple(instants(per_second, NOON + year - GRACE, NOON + year)) or len(firing.starts) == 61
        )
        assert firing.missed == 1000
    firing = decide(Cron("0 9 1 * *"), "allow", "last", handled=NOON - 200 * year, now=NOON, last=None)
    assert (firing.starts, firing.missed) == ((NOON.replace(hour=9),), 1000)
    assert firing.next_at == datetime(2026, 7, 1, 9, tzinfo=UTC)
    every_one = decide(per_second, "allow", "all", handled=NOON, now=NOON + year, last=None)
    assert len(every_one.starts) == MAX_STARTS
    assert every_one.next_at == every_one.starts[-1] + SECOND


@given(
    st.sampled_from(get_args(Overlap)),
    st.sampled_from(get_args(CatchUp)),
    st.lists(st.tuples(st.integers(1, 400), st.integers(0, 300), st.booleans()), max_size=30),
)
def test_no_instant_is_handled_twice_and_none_is_forgotten(
    overlap: Overlap, catch_up: CatchUp, visits: list[tuple[int, int, bool]]
) -> None:
    """Visits at random times, with runs that take a random time, and a clock that sometimes goes back a minute."""
    timing = Every(timedelta(seconds=45))
    handled, now = NOON, NOON
    last: LastRun | None = None
    queued_until: datetime | None = None
    started: list[datetime] = []
    dropped = 0
    ends = NOON
    for pause, duration, goes_back in visits:
        now += timedelta(seconds=-60 if goes_back else pause)
        seen = last and replace(last, ended_at=ends if ends <= now else None)
        firing = decide(timing, overlap, catch_up, handled=handled, now=now, last=seen, queued_until=queued_until)
        assert firing.handled >= handled
        assert firing.next_at == timing.next(firing.handled)
        assert all(handled < each <= now for each in firing.starts)
        if overlap in ("skip", "queue"):
            assert len(firing.starts) <= 1
            assert not (firing.starts and seen and seen.is_active)
        handled, queued_until = firing.handled, firing.queued_until
        started += firing.starts
        dropped += firing.skipped + firing.missed
        if firing.starts:
            last, ends = LastRun(now), now + timedelta(seconds=duration)
    assert started == sorted(set(started))
    assert len(started) + dropped == len(list(instants(timing, NOON, handled)))
    if overlap == "allow" and catch_up == "all":
        assert dropped == 0


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)), st.integers(0, 3600 * 10**6))  # noqa: DTZ001 -- naive
def test_jitter_delays_by_less_than_its_bound_and_always_by_the_same(moment: datetime, microseconds: int) -> None:
    jitter, instant = timedelta(microseconds=microseconds), moment.replace(tzinfo=UTC)
    spec = ScheduleSpec("s", "T", "workflow", HOURLY, jitter=jitter)
    start = spec.start_at(instant)
    assert instant <= start <= instant + jitter
    assert start == spec.start_at(instant)


def test_jitter_spreads_schedules_over_its_length() -> None:
    spec = ScheduleSpec("s", "T", "workflow", HOURLY, jitter=HOUR)
    delays = {spec.start_at(instant) - instant for instant in instants(HOURLY, NOON, NOON + 200 * HOUR)}
    assert len(delays) == 200
    assert min(delays) < timedelta(minutes=3)
    assert max(delays) > timedelta(minutes=57)


@step(events=("ok",))
def count(ctx: Context[Any]) -> Ok:
    return Ok("ok")


class Count(Workflow[dict[str, int]], unique=Unique("count")):
    initial = count
    transitions = {count: {"ok": Done}}


def test_a_run_has_its_instant_in_its_value_and_metadata() -> None:
    nightly = schedule("@daily", Count, name="nightly", args={"n": 1})
    spec = nightly.spec("workflow", '{"n":1}')
    assert spec.value_at(NOON) == "nightly@2026-06-01T12:00:00Z"
    assert spec.metadata_at(NOON) == {"schedule": "nightly", "scheduled_for": "2026-06-01T12:00:00Z"}
    assert schedule("@daily", Count).name == schedule("@daily", "Count").name == "Count"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"when": "61 * * * *"}, "cron='61 * * * *'"),
        ({"tz": "Europe/Berln"}, "tz='Europe/Berln'"),
        ({"target": 7}, "target=7"),
        ({"target": int}, "target=<class 'int'>"),
        ({"name": "two words"}, "name='two words'"),
        ({"name": "a::b"}, "name='a::b'"),
        ({"overlap": "wait"}, "overlap='wait' is refused: it is one of 'skip'"),
        ({"catch_up": "some"}, "catch_up='some'"),
        ({"jitter": timedelta(days=2)}, "longer than the shortest period of the schedule, 1 day"),
        ({"jitter": -HOUR}, "jitter="),
        ({"jitter": 5}, "jitter=5"),
        ({"value": "nightly"}, 'it must contain "{instant}"'),
        ({"value": "a b {instant}"}, "value='a b {instant}'"),
    ],
)
def test_a_bad_option_is_refused_with_its_name(options: dict[str, Any], problem: str) -> None:
    when, target = options.pop("when", "@daily"), options.pop("target", Count)
    with pytest.raises(InvalidValue) as refusal:
        schedule(when, target, **options)
    assert problem in str(refusal.value)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ([schedule("@daily", "Cuont")], "schedule 'Cuont': target: this app has no workflow or task named 'Cuont'"),
        ([schedule("@daily", Count, args={"n": "x"})], "schedule 'Count': Count: the input does not fit"),
        ([schedule("@daily", Count), schedule("@hourly", Count)], "two schedules are named 'Count'"),
        (["@daily"], "'@daily' is not a schedule"),
    ],
)
def test_an_app_refuses_schedules_that_it_cannot_fire(declared: list[Schedule], problem: str) -> None:
    with pytest.raises(DefinitionError) as refusal:
        Pgflow("postgresql://nowhere", workflows=[Count], schedules=declared)
    assert problem in str(refusal.value)


def test_a_schedule_that_is_added_is_checked_before_anything_is_sent() -> None:
    app = Pgflow("postgresql://nowhere", workflows=[Count])
    calls: list[tuple[Any, type[PgflowError]]] = [
        (lambda: app.schedules.add("@daily", Count, args={"n": "x"}), InvalidInput),
        (lambda: app.schedules.add("@dayly", Count), InvalidValue),
        (lambda: app.schedules.add(every(HOUR), Count, tz="UTC"), InvalidValue),
        (lambda: app.schedules.pause("no such name"), InvalidValue),
        (lambda: app.schedules.run("no such name"), InvalidValue),
        (lambda: app.schedules.next("name", 0), InvalidValue),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()
    app.close()
