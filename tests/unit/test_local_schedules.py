"""Schedules of a `Local` fire on its virtual clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, TaskContext, Unique, WaitForEvent, Workflow, every, schedule, step, task
from pgflow.errors import ScheduleConflict, UnknownSchedule
from pgflow.local import Local

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@step
def note(ctx: Context[Any]) -> Ok:
    return Ok("done", {"seen": ctx.metadata["scheduled_for"], "input": ctx.initial})


gate = WaitForEvent("go").named("gate")


class Quick(Workflow[dict[str, Any]], unique=Unique("quick")):
    initial = note
    transitions = {note: {"done": Done}}


class Slow(Workflow[dict[str, Any]], unique=Unique("slow")):
    initial = gate
    transitions = {gate: {"received": Done}}


SEEN: list[tuple[int, str]] = []


@task
def report(days: int, ctx: TaskContext) -> None:
    SEEN.append((days, ctx.metadata["scheduled_for"]))


DAILY = schedule("0 9 * * *", Quick, name="daily", tz="Europe/Berlin", args={"n": 1})


@pytest.fixture
def app() -> Iterator[Local]:
    with Local(workflows=[Quick, Slow], tasks=[report], schedules=[DAILY]) as app:
        yield app


def instants(app: Local, name: str) -> list[str]:
    found = [each for each in app.list(limit=500) if each.metadata.get("schedule") == name]
    return sorted(each.metadata["scheduled_for"] for each in found)


def test_a_month_has_a_run_for_each_of_its_days(app: Local) -> None:
    expected = app.schedules.next("daily", 30)
    app.advance_time(expected[-1] - app.now)
    assert instants(app, "daily") == [each.isoformat().replace("+00:00", "Z") for each in expected]
    run = app.get("Quick", f"daily@{instants(app, 'daily')[0]}")
    assert run.output(note) == {"seen": instants(app, "daily")[0], "input": {"n": 1}}
    assert app.schedules.get("daily").fired == 30
    assert run.created_at == expected[0]
    app.drain(timeout=10)  # a schedule does not keep it waiting


def test_a_task_is_enqueued_with_its_arguments(app: Local) -> None:
    SEEN.clear()
    app.schedules.add(every(HOUR), report, args={"days": 7})
    app.advance_time(3 * HOUR)
    assert [days for days, _ in SEEN] == [7, 7, 7]
    assert len({instant for _, instant in SEEN}) == 3


def test_an_active_run_is_skipped_queued_behind_or_cancelled(app: Local) -> None:
    for overlap in ("skip", "queue", "cancel_old", "allow"):
        app.schedules.add(every(HOUR), Slow, name=overlap, overlap=overlap)
    app.advance_time(3 * HOUR)
    assert {name: len(instants(app, name)) for name in ("skip", "queue", "cancel_old", "allow")} == {
        "skip": 1, "queue": 1, "cancel_old": 3, "allow": 3
    }  # fmt: skip
    cancelled = [each for each in app.list(Slow) if each.status == "cancelled"]
    assert len(cancelled) == 2
    app.resume(Slow, f"queue@{instants(app, 'queue')[0]}", "go")
    app.settle(timeout=10)
    assert len(instants(app, "queue")) == 2
    assert app.schedules.get("skip").skipped == 2


def test_pause_resume_run_backfill_and_remove(app: Local) -> None:
    app.schedules.pause("daily", by="ada")
    app.advance_time(3 * DAY)
    assert instants(app, "daily") == []
    assert app.schedules.get("daily").state == "paused"
    app.schedules.resume("daily")
    app.advance_time(DAY)
    assert len(instants(app, "daily")) == 1
    start = app.now - 10 * DAY
    assert len(app.schedules.backfill("daily", start, start + 5 * DAY)) == 5
    assert app.schedules.run("daily").created
    with pytest.raises(ScheduleConflict):
        app.schedules.remove("daily")
    app.schedules.remove("daily", force=True)
    with pytest.raises(UnknownSchedule):
        app.schedules.get("daily")
