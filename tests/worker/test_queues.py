"""Queues by role: where steps fill their queue, signals and timers are dealt with in another one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow import Done, Pgflow, Unique, WaitForEvent, Workflow
from pgflow.database.connect import Connection
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, steps, until_status
from tests.worker.gated_steps import Gate, Input, Trio, first, second
from tests.worker.waiting import until

answer = WaitForEvent("answered").named("answer")
hurried = WaitForEvent("answered", timeout=timedelta(seconds=0.3)).named("hurried")


class Asking(Workflow[Input], unique=Unique("asking"), orchestration_queue="orchestration"):
    initial = answer
    transitions = {answer: {"received": second}, second: {"done": Done}}


class Hurrying(Workflow[Input], unique=Unique("hurrying"), orchestration_queue="orchestration"):
    initial = hurried
    transitions = {hurried: {"received": Done, "timeout": Done}}


class Held(Workflow[Input], unique=Unique("held")):
    """A step that holds a slot of the queue."""

    initial = first
    transitions = {first: {"done": Done}}


WORKFLOWS = (Asking, Hurrying, Held, Trio)


@pytest.fixture(autouse=True)
def gate() -> None:
    Gate.close()


def waits(conn: Connection) -> Any:
    return one(conn, "select count(*) from pgflow.jobs where state = 'parked'")


def hold_the_queue() -> None:
    """Let a step take the only slot of the queue of steps, until the gate is opened."""
    Held.start("slow", {"gate": True})
    assert Gate.begun.wait(30)


@pytest.mark.parametrize("is_one_worker", [True, False])
def test_a_signal_is_applied_while_slow_steps_fill_the_queue(
    app: Pgflow, conn: Connection, work: Work, is_one_worker: bool
) -> None:
    workers = [{"default": 1, "orchestration": 5}] if is_one_worker else [{"default": 1}, {"orchestration": 5}]
    for queues in workers:
        work(queues)
    Asking.start("a", {})
    until(lambda: waits(conn) == 1, "the wait")
    hold_the_queue()

    Asking.resume("a", "answered", {"yes": True})
    until(lambda: steps(Asking.get("a")) == ["answer"], "the signal")
    assert rows(conn, "select step, kind, queue from pgflow.jobs where step = 'second'") == [
        ("second", "execute", "default")
    ]
    assert Held.get("slow").status == "running"
    Gate.go.set()
    assert until_status(Asking, "a").status == "completed"
    until_status(Held, "slow")
    assert leftovers(conn) == {}


def test_a_timer_is_applied_while_slow_steps_fill_the_queue(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"default": 1})
    Hurrying.start("h", {})
    until(lambda: waits(conn) == 1, "the wait")
    hold_the_queue()
    work({"orchestration": 1})
    assert until_status(Hurrying, "h").status == "completed"
    Gate.go.set()
    until_status(Held, "slow")


def test_a_worker_of_another_queue_that_stages_a_timer_wakes_those_who_serve_it(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work({"default": 1})
    work({"orchestration": 1}, poll=timedelta(hours=1), sweep=timedelta(hours=1))
    Hurrying.start("h", {})
    assert until_status(Hurrying, "h").status == "completed"
