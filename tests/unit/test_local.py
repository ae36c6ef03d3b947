"""What only `Local` has: a virtual clock, a storage that outlives it, no threads after it is closed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Ok, Retry, Snooze, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.errors import ConfigError, Conflict, DefinitionError, NotBound, UndeclaredEvent, UnknownWorkflow
from pgflow.local import Local, Storage

Input = dict[str, Any]
DAY = timedelta(days=1)
PATIENCE = 20.0
CALLS: list[tuple[str, str, int]] = []
GO = threading.Event()
BEGUN = threading.Event()
COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("COLOUR", default="none")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves a thread behind."""
    CALLS.clear()
    GO.clear()
    BEGUN.clear()
    before = set(threading.enumerate())
    yield
    for each in set(threading.enumerate()) - before:
        if each.name.startswith("pgflow-local"):
            each.join(PATIENCE)  # it may be about to end
            assert not each.is_alive(), each


def note(ctx: Context[Input]) -> None:
    CALLS.append((ctx.value, ctx.step, ctx.attempt))


@step
def one(ctx: Context[Input]) -> Ok:
    note(ctx)
    return Ok("done", {"n": 1})


@step
async def two(ctx: Context[Input]) -> Ok:
    note(ctx)
    return Ok("done", {"n": ctx.steps["one"]["n"] + 1})


day, month = Wait(DAY).named("day"), Wait(days=30).named("month")
answer = WaitForEvent("answered", timeout=DAY).named("answer")


class Long(Workflow[Input], unique=Unique("long")):
    """A step, a day, a month, a step."""

    initial = one
    transitions = {one: {"done": day}, day: {"timeout": month}, month: {"timeout": two}, two: {"done": Done}}


class Asking(Workflow[Input], unique=Unique("asking")):
    """A wait for a signal, a day long."""

    initial = one
    transitions = {one: {"done": answer}, answer: {"received": two, "timeout": Done}, two: {"done": Done}}


@step(retry=Retry(max_attempts=4, base=timedelta(hours=1), backoff="linear", jitter=0, max_backoff=DAY))
def failing(ctx: Context[Input]) -> Ok | Error | Snooze:
    note(ctx)
    match ctx.initial.get("how"):
        case "snoozes" if len(CALLS) < 3:
            return Snooze(DAY)
        case "fails":
            return Error("down")
    return Ok("done")


class Failing(Workflow[Input], unique=Unique("failing")):
    """A step that fails, with pauses of hours."""

    initial = failing
    transitions = {failing: {"done": Done}}


@step
def blocking(ctx: Context[Input]) -> Ok:
    note(ctx)
    BEGUN.set()
    GO.wait(PATIENCE)
    return Ok("done")


@step
async def lasting(ctx: Context[Input]) -> Ok:
    note(ctx)
    BEGUN.set()
    while not GO.is_set():  # noqa: ASYNC110 -- set by another thread
        await asyncio.sleep(0.005)
    return Ok("done")


class Blocking(Workflow[Input], unique=Unique("blocking")):
    """A sync step that runs until GO is set."""

    initial = blocking
    transitions = {blocking: {"done": Done}}


class Lasting(Workflow[Input], unique=Unique("lasting")):
    """An async step that runs until GO is set."""

    initial = lasting
    transitions = {lasting: {"done": Done}}


@step(transactional=True)
def booking(ctx: Context[Input]) -> Ok:
    return Ok("done", {"has_conn": ctx.conn is not None})


class Booking(Workflow[Input], unique=Unique("booking")):
    """A transactional step."""

    initial = booking
    transitions = {booking: {"done": Done}}


@step
async def starting(ctx: Context[Input]) -> Ok:
    Asking.start(ctx.value)  # the sync call, on the loop: it must not wait for itself
    await Asking.aresume(ctx.value, "answered", COLOUR.get())
    return Ok("done", {"colour": COLOUR.get()})


class Starting(Workflow[Input], unique=Unique("starting")):
    """A step that starts another workflow."""

    initial = starting
    transitions = {starting: {"done": Done}}


@step
def cancelling(ctx: Context[Input]) -> Async:
    raise asyncio.CancelledError


class Cancelling(Workflow[Input], unique=Unique("cancelling")):
    """A step that is cancelled from within."""

    initial = cancelling
    transitions = {cancelling: {"done": Done}}


WORKFLOWS = (Long, Asking, Failing, Blocking, Lasting, Booking, Starting, Cancelling)


# -- time


def test_a_month_passes_at_once() -> None:
    with Local(workflows=WORKFLOWS) as app:
        began = app.now
        Long.start("v")
        app.advance_time(timedelta(hours=23))
        (wait,) = Long.get("v").waiting_for
        assert (wait.step, wait.kind) == ("day", "timer")
        assert wait.until is not None
        assert timedelta(0) < wait.until - app.now <= timedelta(hours=1)
        app.advance_time(timedelta(hours=1))
        assert [each.step for each in Long.get("v").waiting_for] == ["month"]
        app.advance_time(30 * DAY)
        done = Long.get("v")
        assert (done.status, done.steps["two"]) == ("completed", {"n": 2})
        ats = [entry.at - began for entry in done.history]
        assert [at // DAY for at in ats] == [0, 1, 31, 31]
        assert timedelta(days=31) <= app.now - began < timedelta(days=32)


def test_a_signal_before_the_timeout_cancels_the_timer() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Asking.start_many([("signalled", {}), ("forgotten", {})])
        app.settle(PATIENCE)
        assert Asking.resume("signalled", "answered") == "delivered"
        app.advance_time(2 * DAY)
        assert [entry.step for entry in Asking.get("signalled").history] == ["one", "answer", "two"]
        assert [entry.event for entry in Asking.get("forgotten").history] == ["done", "timeout"]


def test_the_delays_between_attempts_are_those_of_the_policy() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Failing.start("v", {"how": "fails"})
        for attempt in (1, 2, 3):
            app.settle(PATIENCE)
            (wait,) = Failing.get("v").waiting_for
            assert (wait.kind, wait.attempt, wait.error, wait.max_attempts) == ("retry", attempt, "down", 4)
            assert wait.until is not None
            assert timedelta(0) < timedelta(hours=attempt) - (wait.until - app.now) < timedelta(minutes=1)
            app.advance_time(timedelta(hours=attempt))
        assert Failing.get("v").status == "failed"
        assert [("v", "failing", attempt) for attempt in (1, 2, 3, 4)] == CALLS


def test_a_snooze_and_a_delayed_start_use_the_same_clock() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Failing.start("v", {"how": "snoozes"}, delay=DAY)
        app.settle(PATIENCE)
        assert (Failing.get("v").status, CALLS) == ("pending", [])
        app.advance_time(4 * DAY)
        assert (Failing.get("v").status, CALLS) == ("completed", [("v", "failing", 1)] * 3)


def test_draining_waits_for_timers_and_settling_does_not() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Long.start("v")
        app.settle(PATIENCE)
        assert Long.get("v").status == "waiting"
        with pytest.raises(TimeoutError, match=r"long::v day \(parked\)"):
            app.drain(timeout=0.05)


def test_timers_in_a_row_end_exactly_at_the_sum_of_their_delays() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Long.start("v")
        app.advance_time(31 * DAY)
        assert Long.get("v").status == "completed"
        assert Long.get("v").history[2].at - Long.get("v").history[1].at == 30 * DAY


def test_the_clock_runs_on_after_a_timeout_of_advance_time() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Lasting.start("v")
        with pytest.raises(TimeoutError, match=r"lasting::v lasting \(running\)"):
            app.advance_time(DAY, timeout=0.05)
        GO.set()
        app.drain(PATIENCE)
        moment = app.now
        app.advance_time(DAY)
        assert DAY <= app.now - moment < DAY + timedelta(minutes=1)
        assert app.now > moment + DAY


# -- the storage, and restarts


def test_a_new_local_continues_active_instances() -> None:
    storage = Storage("kept")
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        Asking.start_many([("waiting", {}), ("timed", {})])
        Long.start("later", delay=DAY)
        Failing.start("retrying", {"how": "fails"})
        app.settle(PATIENCE)
        Lasting.start("running")
        assert BEGUN.wait(PATIENCE)
        Failing.start("done")
        app_before = Asking.get("waiting")
    assert storage.get("lasting::running").waiting_for[0].kind == "queue"
    CALLS.clear()
    GO.set()
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        assert Asking.get("waiting") == app_before
        app.settle(PATIENCE)
        assert Lasting.get("running").history[0].attempt == 1  # the attempt that was interrupted does not count
        assert Asking.resume("waiting", "answered", "late") == "delivered"
        app.advance_time(timedelta(days=90))
        statuses = {each.id: each.status for each in storage.query()}
        assert statuses == {
            "asking::waiting": "completed",
            "asking::timed": "completed",
            "long::later": "completed",
            "failing::retrying": "failed",
            "failing::done": "completed",
            "lasting::running": "completed",
        }
        assert [call for call in CALLS if call[:2] in (("waiting", "one"), ("timed", "one"))] == []
        assert Asking.start("waiting").run > app_before.run


def test_a_signal_in_the_mailbox_survives_a_restart() -> None:
    storage = Storage()
    with Local(workflows=WORKFLOWS, storage=storage):
        Asking.start("v", delay=DAY)
        assert Asking.resume("v", "answered", {"n": 1}) == "kept"
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        app.advance_time(DAY)
        assert Asking.get("v").steps["answer"] == {"n": 1}


def test_a_storage_belongs_to_one_open_local() -> None:
    storage = Storage()
    with Local(workflows=WORKFLOWS, storage=storage), pytest.raises(Conflict, match="belongs to another"):
        Local(workflows=WORKFLOWS, storage=storage)
    Local(workflows=WORKFLOWS, storage=storage).close()


def test_two_locals_have_instances_of_their_own() -> None:
    with Local(workflows=[Asking]) as one_app, Local(workflows=[Asking]) as other:
        one_app.start(Asking, "v")
        other.start(Asking, "v")
        one_app.settle(PATIENCE)
        other.settle(PATIENCE)
        assert other.resume(Asking, "v", "answered") == "delivered"
        other.settle(PATIENCE)
        assert (one_app.get(Asking, "v").status, other.get(Asking, "v").status) == ("waiting", "completed")


def test_a_restored_step_can_call_its_bound_workflow() -> None:
    storage = Storage()
    with Local(workflows=WORKFLOWS, storage=storage):
        Starting.start("v", delay=DAY)
    other = Local(workflows=WORKFLOWS)
    with Local(workflows=WORKFLOWS, storage=storage) as app:
        app.advance_time(DAY)
        assert {each.id: each.status for each in storage.query()} == {
            "starting::v": "completed",
            "asking::v": "completed",
        }
    other.close()


# -- refusals


def test_a_transactional_step_is_refused_unless_it_is_allowed_without_a_transaction() -> None:
    with Local(workflows=WORKFLOWS), pytest.raises(ConfigError, match=r"Booking has transactional steps \(booking\)"):
        Booking.start("v")
    with Local(workflows=WORKFLOWS, allow_transactional=True) as app:
        Booking.start("v")
        app.drain(PATIENCE)
        assert Booking.get("v").steps["booking"] == {"has_conn": False}


def test_unsupported_calls_are_refused_by_name() -> None:
    with Local(workflows=[Asking]) as app:
        with pytest.raises(ConfigError, match="no transaction to join"):
            Asking.start("v", conn=object())
        with pytest.raises(UnknownWorkflow, match="no workflow Long"):
            app.start(Long, "v")
        with pytest.raises(UndeclaredEvent):
            app.resume(Asking, "v", "elsewhere")
    with pytest.raises(NotBound, match="closed"):
        Asking.start("v")
    with pytest.raises(DefinitionError):
        Local(workflows=[one])  # type: ignore[list-item]


# -- threads and loops


def test_a_step_may_call_other_workflows_and_has_empty_context_variables() -> None:
    COLOUR.set("red")
    with Local(workflows=WORKFLOWS) as app:
        Starting.start("v")
        app.settle(PATIENCE)
        assert Starting.get("v").steps["starting"] == {"colour": "none"}
        assert Asking.get("v").steps["answer"] == "none"


def test_async_code_has_the_same_calls() -> None:
    async def main() -> None:
        async with Local(workflows=WORKFLOWS) as app:
            await Asking.astart("v")
            await app.asettle(PATIENCE)
            assert (await Asking.aget("v")).status == "waiting"
            with pytest.raises(TimeoutError):
                await app.adrain(0.05)
            assert await Asking.aresume("v", "answered") == "delivered"
            await app.adrain(PATIENCE)
            assert [each.status for each in await Asking.alist()] == ["completed"]
            (started,) = await Long.astart_many([("v", {})])
            await app.aadvance_time(40 * DAY)
            assert (await Long.aget("v")).run == started.run
            await Asking.astart("w")
            await Asking.acancel("w")
            with pytest.raises(Conflict):
                await Asking.aretry("w")

    asyncio.run(main())


def test_a_step_that_cancels_itself_fails_its_instance_alone() -> None:
    with Local(workflows=WORKFLOWS) as app:
        Cancelling.start("v")
        Failing.start("v")
        app.settle(PATIENCE)
        (wait,) = Cancelling.get("v").waiting_for
        assert wait.error == "CancelledError: the step was cancelled from within"
        assert Failing.get("v").status == "completed"


def test_closing_waits_for_the_sync_steps_that_run() -> None:
    app = Local(workflows=WORKFLOWS)
    Blocking.start("v")
    assert BEGUN.wait(PATIENCE)
    threading.Timer(0.05, GO.set).start()
    app.close()
    app.close()
    assert GO.is_set()
    assert app.get(Blocking, "v").status == "running"  # its result came too late


def test_one_of_48_threads_that_start_one_key_wins() -> None:
    def start() -> None:
        try:
            won.append(Asking.start("v").run)
        except Conflict as error:
            lost.append(error.code)

    won: list[int] = []
    lost: list[str] = []
    with Local(workflows=WORKFLOWS):
        threads = [threading.Thread(target=start) for _ in range(48)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(won), lost) == (1, ["already-running"] * 47)
