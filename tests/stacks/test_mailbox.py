"""Signals survive a failure: unconsumed ones are still in the mailbox after a retry, on both stacks."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from threading import Event
from typing import Any

import pytest

from pgflow import Async, Context, Done, Error, Instance, Ok, Retry, Unique, Workflow, route, step
from pgflow.errors import NotActive
from tests.worker.waiting import until

Input = dict[str, Any]
NUMBERS = count(1)
GO: dict[str, Event] = {}
BROKEN: set[str] = set()
UNROUTED: set[str] = set()
ONCE = Retry(max_attempts=1)
SOON = timedelta(milliseconds=20)
DAY = timedelta(days=1)


@step(retry=ONCE)
def check(ctx: Context[Input]) -> Ok | Error:
    GO[ctx.value].wait(30)
    return Error("down") if ctx.value in BROKEN else Ok("done")


@step(events=("paid", "declined"), retry=ONCE)
def pay(ctx: Context[Input]) -> Async:
    return Async()


def by_amount(ctx: Context[Input]) -> Any:
    if ctx.value in UNROUTED:
        raise LookupError("no route today")
    return ship


@step
def ship(ctx: Context[Input]) -> Ok:
    return Ok("done", ctx.output(pay))


class Order(Workflow[Input], unique=Unique("order")):
    """A step that may fail, and then a wait whose event is routed."""

    initial = check
    transitions = {
        check: {"done": pay},
        pay: {"paid": route(by_amount, ship, Done), "declined": Done},
        ship: {"done": Done},
    }


WORKFLOWS = (Order,)


@pytest.fixture
def value() -> str:
    value = f"m{next(NUMBERS)}"
    GO[value] = Event()
    return value


def reaches(value: str, *statuses: str) -> Instance:
    def look() -> Instance | None:
        found: Instance = Order.get(value)
        return found if found.status in statuses else None

    found = until(look, f"{value} is {statuses}")
    assert found is not None
    return found


def fail(value: str) -> Instance:
    """Let the first step fail."""
    BROKEN.add(value)
    GO[value].set()
    failed = reaches(value, "failed")
    BROKEN.discard(value)
    return failed


def test_a_signal_that_came_before_a_failure_is_taken_after_the_retry(app: Any, value: str) -> None:
    Order.start(value, {})
    assert Order.resume(value, "paid", {"amount": 3}) == "kept"
    failed = fail(value)
    assert [(each.event, each.payload, each.id) for each in failed.signals] == [("paid", {"amount": 3}, None)]
    Order.retry(value)
    ended = reaches(value, "completed")
    assert (ended.steps["pay"], ended.steps["ship"], ended.signals) == ({"amount": 3}, {"amount": 3}, ())


def test_a_signal_that_is_scheduled_before_a_failure_is_sent_after_the_retry(app: Any, value: str) -> None:
    Order.start(value, {})
    later = Order.schedule_resume(value, pay, timedelta(seconds=2), "paid", {"amount": 4})
    failed = fail(value)
    assert [(each.event, each.step, each.id) for each in failed.signals] == [("paid", "pay", later.id)]
    Order.retry(value)
    assert reaches(value, "completed").steps["pay"] == {"amount": 4}


def test_a_signal_that_comes_due_while_the_instance_is_failed_is_kept_for_the_retry(app: Any, value: str) -> None:
    Order.start(value, {})
    Order.schedule_resume(value, pay, SOON, "paid", {"amount": 5})
    fail(value)
    until(lambda: [each.id for each in Order.get(value).signals] == [None], "it is in the mailbox")
    Order.retry(value)
    assert reaches(value, "completed").steps["pay"] == {"amount": 5}


def test_a_scheduled_signal_of_a_failed_instance_can_be_cancelled(app: Any, value: str) -> None:
    Order.start(value, {})
    later = Order.schedule_resume(value, pay, DAY, "paid", {"amount": 6})
    fail(value)
    assert [later.cancel(), later.cancel()] == [True, False]
    assert Order.get(value).signals == ()


def test_a_signal_whose_route_raised_is_not_lost(app: Any, value: str) -> None:
    GO[value].set()
    Order.start(value, {})
    reaches(value, "waiting")
    UNROUTED.add(value)
    assert Order.resume(value, "paid", {"amount": 7}) == "delivered"
    failed = reaches(value, "failed")
    UNROUTED.discard(value)
    assert failed.error is not None
    assert "no route today" in failed.error["reason"]
    Order.retry(value)
    ended = reaches(value, "completed")
    assert (ended.steps["pay"], ended.steps["ship"]) == ({"amount": 7}, {"amount": 7})


def test_a_signal_that_came_before_the_wait_whose_route_raised_is_not_lost(app: Any, value: str) -> None:
    UNROUTED.add(value)
    Order.start(value, {})
    Order.resume(value, "paid", {"amount": 8})
    GO[value].set()
    failed = reaches(value, "failed")
    assert failed.error is not None
    assert "no route today" in failed.error["reason"]
    UNROUTED.discard(value)
    Order.retry(value)
    assert reaches(value, "completed").steps["ship"] == {"amount": 8}


def test_a_cancelled_instance_has_no_signals_and_takes_none(app: Any, value: str) -> None:
    Order.start(value, {})
    Order.resume(value, "paid", {"amount": 9})
    later = Order.schedule_resume(value, pay, DAY, "paid")
    Order.cancel(value)
    GO[value].set()
    assert (Order.get(value).signals, later.cancel()) == ((), False)
    with pytest.raises(NotActive):
        Order.resume(value, "paid")


def test_signals_are_taken_in_the_order_of_their_arrival_also_after_a_failure(app: Any, value: str) -> None:
    Order.start(value, {})
    Order.resume(value, "paid", {"amount": 1}, step=pay)
    Order.resume(value, "paid", {"amount": 2})
    fail(value)
    Order.retry(value)
    assert reaches(value, "completed").steps["pay"] == {"amount": 1}


def test_a_signal_is_kept_over_failures_again_and_again(app: Any, value: str) -> None:
    Order.start(value, {})
    Order.resume(value, "paid", {"amount": 10})
    for _ in range(3):
        fail(value)
        GO[value].clear()
        Order.retry(value)
    GO[value].set()
    assert reaches(value, "completed").steps["pay"] == {"amount": 10}
