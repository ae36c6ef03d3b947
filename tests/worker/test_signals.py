"""Signals: none is lost, none is taken twice, each ends the wait that it is for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, WaitForEvent, Workflow, route, step
from pgflow.database.connect import Connection
from pgflow.errors import AmbiguousSignal, NotActive, UndeclaredEvent
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, steps, until_all_ended, until_status
from tests.worker.waiting import until

Input = dict[str, Any]


@step
def ask(ctx: Context[Input]) -> Ok:
    return Ok("done")


answer = WaitForEvent("answered").named("answer")
left, right = WaitForEvent("signed").named("left"), WaitForEvent("signed").named("right")
hurried = WaitForEvent("answered", timeout=timedelta(seconds=0.5)).named("hurried")


@step
def close(ctx: Context[Input]) -> Ok:
    return Ok("done", {key: ctx.steps[key] for key in ctx.steps if key in ("answer", "left", "right", "hurried")})


@step
def despair(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Asking(Workflow[Input], unique=Unique("asking")):
    """A step, a wait, a step."""

    initial = ask
    transitions = {ask: {"done": answer}, answer: {"received": close}, close: {"done": Done}}


class Signing(Workflow[Input], unique=Unique("signing")):
    """Two waits for signals of one name, side by side."""

    initial = ask
    transitions = {
        ask: {"done": [left, right]},
        left: {"received": close},
        right: {"received": close},
        close: {"done": Done},
    }


class Hurrying(Workflow[Input], unique=Unique("hurrying")):
    """A wait with a timeout."""

    initial = hurried
    transitions = {
        hurried: {"received": close, "timeout": despair},
        close: {"done": Done},
        despair: {"done": Done},
    }


def by_answer(ctx: Context[Input]) -> Any:
    if ctx.steps["answer"] == "neither":
        raise LookupError("nowhere to go")
    return close if ctx.steps["answer"] == "yes" else despair


class Routed(Workflow[Input], unique=Unique("routed")):
    """The payload of the signal decides the next step."""

    initial = answer
    transitions = {
        answer: {"received": route(by_answer, close, despair)},
        close: {"done": Done},
        despair: {"done": Done},
    }


LONG = 8
waits = [WaitForEvent("called").named(f"call{number}") for number in range(LONG)]
after_each: list[Any] = [*waits[1:], Done]


class Calling(Workflow[Input], unique=Unique("calling")):
    """Many waits for signals of one name, one after the other."""

    initial = waits[0]
    transitions = {wait: {"received": after} for wait, after in zip(waits, after_each, strict=True)}


WORKFLOWS = (Asking, Signing, Hurrying, Routed, Calling)
RESUME = "select pgflow.resume(%s, 'v', %s, to_jsonb(%s::integer))"


def parked(work: Work, workflow: type[Workflow[Input]]) -> None:
    """An instance whose wait has begun, and no worker to go on from there."""
    worker = work()
    workflow.start("v", {})
    until_status(workflow, "v", "waiting")
    worker.stop()


def send(conn: Connection, workflow: type[Workflow[Input]], event: str, number: int, *, in_sql: bool) -> str:
    if in_sql:
        return str(one(conn, RESUME, workflow.name, event, number))
    return workflow.resume("v", event, number)


@pytest.mark.parametrize("in_sql", [True, False])
def test_a_second_signal_before_the_first_is_applied_is_kept_for_a_later_wait(
    app: Pgflow, conn: Connection, work: Work, in_sql: bool
) -> None:
    parked(work, Calling)
    answers = [send(conn, Calling, "called", number, in_sql=in_sql) for number in range(LONG)]
    assert answers == ["delivered"] + ["kept"] * (LONG - 1)
    work()
    assert until_status(Calling, "v").steps == {f"call{number}": number for number in range(LONG)}


@pytest.mark.parametrize("in_sql", [True, False])
def test_a_second_signal_that_no_later_step_takes_is_refused_before_the_first_is_applied(
    app: Pgflow, conn: Connection, work: Work, in_sql: bool
) -> None:
    parked(work, Asking)
    assert send(conn, Asking, "answered", 1, in_sql=in_sql) == "delivered"
    with pytest.raises(Exception, match="has gone past the step that takes 'answered'"):
        send(conn, Asking, "answered", 2, in_sql=in_sql)
    work()
    assert until_status(Asking, "v").steps["answer"] == 1
    assert one(conn, "select count(*) from pgflow.signals") == 1


def test_signals_that_are_sent_at_once_are_each_consumed_once_and_in_the_order_of_the_mailbox(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    work()
    Calling.start("v", {})
    together = Barrier(LONG)

    def resume(number: int) -> str:
        together.wait(30)
        return Calling.resume("v", "called", number)

    with ThreadPoolExecutor(LONG) as pool:
        assert set(pool.map(resume, range(LONG))) <= {"delivered", "kept"}
    done = until_status(Calling, "v")
    assert sorted(done.steps.values()) == list(range(LONG))
    mailbox = [payload for (payload,) in rows(conn, "select payload from pgflow.signals order by id")]
    assert [done.steps[f"call{number}"] for number in range(LONG)] == mailbox


def test_a_signal_that_is_sent_again_with_its_key_ends_one_wait(app: Pgflow, conn: Connection, work: Work) -> None:
    parked(work, Calling)
    for _ in range(3):
        assert Calling.resume("v", "called", 0, idempotency_key="click") == "delivered"
    assert Calling.resume("v", "called", 1) == "kept"
    work()
    until(lambda: len(Calling.get("v").history) == 2, "two of the waits to end")
    assert Calling.get("v").steps == {"call0": 0, "call1": 1}


@pytest.mark.parametrize("is_early", [True, False])
def test_a_signal_decides_the_way_whether_it_comes_before_the_wait_or_after(
    app: Pgflow, work: Work, is_early: bool
) -> None:
    if not is_early:
        work()
    for value in ("yes", "no", "neither"):
        Routed.start(value, {})
        if not is_early:
            until_status(Routed, value, "waiting")
        Routed.resume(value, "answered", value)
    if is_early:
        work()
    assert [entry.step for entry in until_status(Routed, "yes").history] == ["answer", "close"]
    assert [entry.step for entry in until_status(Routed, "no").history] == ["answer", "despair"]
    failed = until_status(Routed, "neither")
    assert (failed.status, failed.error and failed.error["type"]) == ("failed", "RouteError")


def test_a_signal_sent_right_after_the_start_is_never_lost(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    work()
    for number in range(100):
        Asking.start(f"v{number}")
        assert Asking.resume(f"v{number}", "answered", {"number": number}) in ("kept", "delivered")
    assert until_all_ended(conn) == {"completed": 100}
    outputs = (
        "select i.id, r.output from pgflow.step_results r join pgflow.instances i using (run) where r.step = 'close'"
    )
    assert dict(rows(conn, outputs)) == {f"asking::v{n}": {"answer": {"number": n}} for n in range(100)}
    assert one(conn, "select count(*) from pgflow.signals where consumed_at is null") == 0
    assert leftovers(conn) == {}


def test_a_signal_kept_before_any_worker_lives_ends_the_wait(app: Pgflow, conn: Connection, work: Work) -> None:
    Asking.start("v")
    assert Asking.resume("v", "answered", "yes") == "kept"
    work()
    assert until_status(Asking, "v").steps["answer"] == "yes"


@pytest.mark.parametrize(
    "payload", [None, {"amount": 3, "notes": ["ä", "\U0001f600"]}, [], 0, False, "text", 12345678901234567890, 1.5]
)
def test_the_payload_becomes_the_output_of_the_wait(app: Pgflow, conn: Connection, work: Work, payload: Any) -> None:
    work()
    Asking.start("v")
    until_status(Asking, "v", "waiting")
    assert Asking.resume("v", "answered", payload) == "delivered"
    done = until_status(Asking, "v")
    assert (done.steps["answer"], done.steps["close"]) == (payload, {"answer": payload})


def test_a_signal_for_one_of_two_waits_has_to_be_addressed_and_ends_only_that_one(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Signing.start("v")
    until_status(Signing, "v", "waiting")
    with pytest.raises(AmbiguousSignal):
        Signing.resume("v", "signed", "nobody")
    assert Signing.resume("v", "signed", "Ann", step=right) == "delivered"
    until(lambda: steps(Signing.get("v")) == ["ask", "right"], "the right signature")
    half = until_status(Signing, "v", "waiting")
    assert [wait.step for wait in half.waiting_for] == ["left"]
    assert Signing.resume("v", "signed", "Bob") == "delivered"
    done = until_status(Signing, "v")
    assert done.steps["close"] == {"left": "Bob", "right": "Ann"}
    assert leftovers(conn) == {}


def test_addressed_signals_that_come_before_their_waits_reach_them(app: Pgflow, conn: Connection, work: Work) -> None:
    Signing.start("v")
    assert Signing.resume("v", "signed", "Ann", step="right") == "kept"
    assert Signing.resume("v", "signed", "Bob", step="left") == "kept"
    work()
    assert until_status(Signing, "v").steps["close"] == {"left": "Bob", "right": "Ann"}


def test_of_two_signals_for_one_wait_the_first_is_taken_and_once(app: Pgflow, conn: Connection, work: Work) -> None:
    Asking.start("v")
    Asking.resume("v", "answered", "first")
    Asking.resume("v", "answered", "second")
    work()
    assert until_status(Asking, "v").steps["answer"] == "first"
    assert one(conn, "select count(*) from pgflow.signals where consumed_at is not null") == 1


def test_a_wait_without_a_signal_times_out_and_not_early(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Hurrying.start("v")
    done = until_status(Hurrying, "v")
    assert steps(done) == ["hurried", "despair"]
    assert done.history[0].event == "timeout"
    assert (done.history[0].at - done.created_at) >= timedelta(seconds=0.5)
    assert leftovers(conn) == {}


def test_a_signal_takes_the_place_of_the_timeout(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Hurrying.start("v")
    until_status(Hurrying, "v", "waiting")
    assert Hurrying.resume("v", "answered", "yes") == "delivered"
    done = until_status(Hurrying, "v")
    assert (steps(done), done.steps["hurried"]) == (["hurried", "close"], "yes")
    later: datetime = one(conn, "select now() + interval '0.6 seconds'")
    until(lambda: one(conn, "select now() > %s", later), "the time of the timeout")
    assert steps(Hurrying.get("v")) == ["hurried", "close"]
    with pytest.raises(NotActive):
        Hurrying.resume("v", "answered", "again")


def test_signals_and_timeouts_that_meet_end_each_wait_once(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    work()
    Hurrying.start_many([(f"v{number}", {}) for number in range(100)])
    until(lambda: one(conn, "select count(*) from pgflow.jobs where state = 'parked'") == 100, "the waits")
    due: datetime = one(conn, "select min(run_at) from pgflow.jobs")
    until(lambda: one(conn, "select now() > %s - interval '30 milliseconds'", due), "the last moment", pause=0.001)
    refused = 0
    for number in range(100):
        try:
            Hurrying.resume(f"v{number}", "answered", number)
        except NotActive:
            refused += 1
    assert until_all_ended(conn) == {"completed": 100}
    ended = dict(rows(conn, "select event, count(*) from pgflow.step_results where step = 'hurried' group by event"))
    assert sum(ended.values()) == 100
    assert one(conn, "select count(*) from pgflow.step_results where step in ('close', 'despair')") == 100
    assert ended.get("received", 0) == one(conn, "select count(*) from pgflow.signals where consumed_at is not null")
    assert ended.get("received", 0) <= 100 - refused
    assert leftovers(conn) == {}


def test_a_signal_that_no_step_takes_is_refused(app: Pgflow, conn: Connection) -> None:
    Asking.start("v")
    with pytest.raises(UndeclaredEvent):
        Asking.resume("v", "paid")
    assert one(conn, "select count(*) from pgflow.signals") == 0
