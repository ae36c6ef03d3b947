"""Cancel: an instance stops, whatever it does at that moment, and records nothing afterwards."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.database.connect import Connection
from pgflow.errors import InstanceNotFound, NotActive
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, steps, until_status
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]


class Scene:
    """What happens in the steps, for the test to see and to steer."""

    def __init__(self) -> None:
        self.begun = Event()
        self.interrupted = Event()
        self.go = Event()


SCENES: dict[str, Scene] = {}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    """A scene of the test's own, for the value "v"."""
    SCENES["v"] = Scene()
    return SCENES["v"]


@step(retry=Retry(max_attempts=1))
async def linger(ctx: Context[Input]) -> Ok:
    SCENES["v"].begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        SCENES["v"].interrupted.set()
        raise
    return Ok("done")


@step
async def insist(ctx: Context[Input]) -> Ok:
    SCENES["v"].begun.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        SCENES["v"].interrupted.set()
    return Ok("done", "in spite of all")


@step
def block(ctx: Context[Input]) -> Ok:
    SCENES["v"].begun.set()
    assert SCENES["v"].go.wait(PATIENCE)
    return Ok("done")


@step(transactional=True)
def block_books(ctx: Context[Input]) -> Ok:
    ctx.conn.execute("insert into cancelled_books (value) values (%s)", [ctx.value])
    SCENES["v"].begun.set()
    assert SCENES["v"].go.wait(PATIENCE)
    return Ok("done")


@step
def fail(ctx: Context[Input]) -> Ok:
    raise RuntimeError("come again in an hour")


@step
def begin(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step
def end(ctx: Context[Input]) -> Ok:
    return Ok("done")


hour = Wait(timedelta(hours=1)).named("hour")
word = WaitForEvent("word", timeout=timedelta(hours=1)).named("word")


class Lingering(Workflow[Input], unique=Unique("cancelled")):
    initial = linger
    transitions = {linger: {"done": end}, end: {"done": Done}}


class Insisting(Workflow[Input], unique=Unique("cancelled")):
    initial = insist
    transitions = {insist: {"done": end}, end: {"done": Done}}


class Blocking(Workflow[Input], unique=Unique("cancelled")):
    initial = block
    transitions = {block: {"done": end}, end: {"done": Done}}


class Booking(Workflow[Input], unique=Unique("cancelled")):
    initial = block_books
    transitions = {block_books: {"done": end}, end: {"done": Done}}


class Waiting(
    Workflow[Input], unique=Unique("cancelled"), retry=Retry(base=timedelta(hours=1), max_backoff=timedelta(hours=1))
):
    """A timer, a wait with a timeout and a step that waits for its next attempt, side by side."""

    initial = begin
    transitions = {
        begin: {"done": [hour, word, fail]},
        hour: {"timeout": end},
        word: {"received": end, "timeout": end},
        fail: {"done": end},
        end: {"done": Done},
    }


class Plain(Workflow[Input], unique=Unique("cancelled")):
    initial = begin
    transitions = {begin: {"done": Done}}


WORKFLOWS = (Lingering, Insisting, Blocking, Booking, Waiting, Plain)


def test_a_queued_one_never_runs(app: Pgflow, conn: Connection, work: Work) -> None:
    Plain.start("v")
    Plain.start("late", delay=timedelta(hours=1))
    Plain.cancel("v", reason="changed my mind")
    Plain.cancel("late")
    assert leftovers(conn) == {}
    work()
    Plain.start("next")
    assert until_status(Plain, "next").status == "completed"
    gone = Plain.get("v")
    assert (gone.status, gone.history, gone.error) == ("cancelled", (), {"reason": "changed my mind"})
    assert gone.finished_at is not None
    assert Plain.get("late").status == "cancelled"


@pytest.mark.parametrize("listen", [True, False], ids=["listening", "polling"])
def test_a_running_async_step_is_interrupted_and_leaves_no_trace(
    app: Pgflow, conn: Connection, work: Work, scene: Scene, listen: bool
) -> None:
    inside = work(listen=listen)
    Lingering.start("v")
    assert scene.begun.wait(PATIENCE)
    Lingering.cancel("v")
    assert scene.interrupted.wait(PATIENCE)
    until(lambda: not inside.worker.held_jobs.jobs, "the release of what it held")
    assert (Lingering.get("v").status, rows(conn, "select * from pgflow.step_results")) == ("cancelled", [])
    assert leftovers(conn) == {}


def test_a_step_that_does_not_let_itself_be_interrupted_leaves_no_trace_either(
    app: Pgflow, conn: Connection, work: Work, scene: Scene
) -> None:
    inside = work()
    Insisting.start("v")
    assert scene.begun.wait(PATIENCE)
    Insisting.cancel("v")
    assert scene.interrupted.wait(PATIENCE)
    inside.stop()
    assert (Insisting.get("v").status, rows(conn, "select * from pgflow.step_results")) == ("cancelled", [])
    assert leftovers(conn) == {}


def test_a_running_sync_step_cannot_be_interrupted_but_its_result_is_dropped(
    app: Pgflow, conn: Connection, work: Work, scene: Scene
) -> None:
    work()
    Blocking.start("v")
    assert scene.begun.wait(PATIENCE)
    Blocking.cancel("v")
    scene.go.set()
    Plain.start("next")
    assert until_status(Plain, "next").status == "completed"
    assert steps(Blocking.get("v")) == []
    assert leftovers(conn) == {}


def test_a_running_transactional_step_is_rolled_back(app: Pgflow, conn: Connection, work: Work, scene: Scene) -> None:
    conn.execute("create table if not exists cancelled_books (value text)")
    inside = work()
    Booking.start("v")
    assert scene.begun.wait(PATIENCE)
    Booking.cancel("v")
    until(lambda: not inside.worker.held_jobs.jobs, "the release of what it held")
    scene.go.set()
    inside.stop()
    assert one(conn, "select count(*) from cancelled_books") == 0
    assert (Booking.get("v").status, steps(Booking.get("v"))) == ("cancelled", [])


def test_timers_waits_and_retries_go_with_it_and_signals_are_refused(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Waiting.start("v")
    Waiting.start("other")
    parked = "select count(*) from pgflow.jobs where state in ('parked', 'scheduled')"
    until(lambda: one(conn, parked) == 6, "the waits")
    Waiting.cancel("v")
    assert one(conn, parked) == one(conn, "select count(*) from pgflow.jobs") == 3
    with pytest.raises(NotActive):
        Waiting.resume("v", "word")
    assert one(conn, "select count(*) from pgflow.signals") == 0
    assert Waiting.resume("other", "word") == "delivered"


def test_what_has_ended_cannot_be_cancelled(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Plain.start("v")
    until_status(Plain, "v", "completed")
    with pytest.raises(NotActive):
        Plain.cancel("v")
    assert Plain.get("v").status == "completed"
    Plain.start("w")
    until_status(Plain, "w", "completed")
    Plain.start("w", delay=timedelta(hours=1))
    Plain.cancel("w")
    with pytest.raises(NotActive):
        Plain.cancel("w")
    with pytest.raises(InstanceNotFound):
        Plain.cancel("nobody")


def test_a_signal_to_an_active_instance_after_the_cancel_of_an_older_run_reaches_the_new_one(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Waiting.start("v")
    until(
        lambda: one(conn, "select count(*) from pgflow.jobs where state in ('parked', 'scheduled')") == 3, "the waits"
    )
    Waiting.cancel("v")
    new = Waiting.start("v")
    Waiting.resume("v", "word", "hello")
    until(lambda: "word" in steps(Waiting.get("v")), "the wait's end")
    assert Waiting.get("v").run == new.run
    assert Waiting.get("v").steps["word"] == "hello"
