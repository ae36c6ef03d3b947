"""Tasks under test, in memory and on PostgreSQL: drained, mocked, enqueued, run inline, delivered again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pgflow import Pgflow, TaskContext
from pgflow.client.app import App
from pgflow.errors import ConfigError, InvalidValue
from pgflow.local import Local
from pgflow.testing import (
    Clock,
    CrashReport,
    Drained,
    assert_enqueued,
    drain,
    mocked,
    refute_enqueued,
    run_inline,
)
from tests.testing.shop import HOUR, MAILS, TASKS, WORKFLOWS, Declined, OrderFlow, add_up, count_stock, send_receipt


@pytest.fixture(params=["local", "postgres"])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    """The shop in memory, and on PostgreSQL."""
    MAILS.clear()
    if request.param == "local":
        with Local(WORKFLOWS, tasks=TASKS) as app:
            yield app
    else:
        yield request.getfixturevalue("pgflow_app")


def test_inline_an_enqueue_runs_at_once_and_raises_what_the_task_raises(app: App) -> None:
    with run_inline(app):
        handle = send_receipt.enqueue(7, copy=True)
        assert handle.get().status == "completed"
        assert handle.get().output == "receipt 7"
        with pytest.raises(Declined, match="no receipt for 13"):
            send_receipt.enqueue(13)
    assert MAILS == [7, 13]


def test_a_task_is_found_by_its_arguments(app: App) -> None:
    send_receipt.options(delay=timedelta(hours=1), tags=["gift"]).enqueue(7, copy=True)
    found = assert_enqueued(send_receipt, order_id=7, copy=True, queue="mail", tags=["gift", "mail"])
    assert (found.name, found.id, found.input) == ("send_receipt", f"job {found.number}", {"order_id": 7, "copy": True})
    refute_enqueued(send_receipt, order_id=8)
    refute_enqueued(count_stock)
    refute_enqueued(OrderFlow)
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(send_receipt, order_id=8)
    assert str(caught.value).startswith(
        f'send_receipt input={{"order_id": 8}} is not enqueued. There is:\n  send_receipt job {found.number} queue=mail'
    )
    with pytest.raises(InvalidValue, match="has no business value, got '7': name the argument"):
        assert_enqueued(send_receipt, "7")


def test_a_mock_replaces_a_task_and_keeps_the_arguments(app: App) -> None:
    def count(ctx: TaskContext, shelf: str) -> int:
        return ctx.attempt

    with run_inline(app):
        with mocked(send_receipt, returns="mock") as sent, mocked(count_stock, calls=count):
            assert send_receipt.enqueue(7).get().output == "mock"
            assert count_stock.enqueue("shelf").get().output == 1
        assert sent.calls == [{"order_id": 7, "copy": False}]
        assert send_receipt.enqueue(8).get().output == "receipt 8"
        with mocked(send_receipt, in_turn=[ConnectionError("down"), "sent"]), pytest.raises(ConnectionError):
            send_receipt.enqueue(9)
        app.adopt(add_up)
        with mocked(add_up, returns=0), mocked(add_up, returns=1) as added:
            assert add_up.enqueue([2, 3]).get().output == 1
    assert (added.calls, add_up.definition.cpu) == ([{"numbers": [2, 3]}], True)
    assert MAILS == [8]
    with pytest.raises(ConfigError, match="a task has no steps"), mocked(send_receipt, "charge", returns=1):
        raise AssertionError


def test_tasks_are_drained_and_their_outcomes_counted(pgflow_app: Pgflow, pgflow_clock: Clock) -> None:
    send_receipt.enqueue_many([(7,), (13,)])
    count_stock.options(queue="elsewhere").enqueue("shelf")
    assert drain(pgflow_app, "mail") == Drained(completed=1, retried=1)
    with pytest.raises(AssertionError, match="count_stock job"):
        assert_enqueued(send_receipt)
    pgflow_app.adopt(add_up)
    add_up.enqueue([2, 3])
    assert drain(pgflow_app) == Drained(completed=2)
    for _ in range(2):
        pgflow_clock.advance(HOUR)
        last = drain(pgflow_app)
    assert last == Drained(failed=1)
    assert MAILS == [7, 13, 13, 13]
    send_receipt.enqueue(13)
    with pytest.raises(Declined) as caught:
        drain(pgflow_app, raises=True)
    assert caught.value.__notes__[0].startswith("in task send_receipt, job ")


def test_tasks_are_delivered_again_at_each_commit_point(pgflow_app: Pgflow, pgflow_crashes: CrashReport) -> None:
    handle = send_receipt.enqueue(7)
    assert drain(pgflow_app) == Drained(completed=1)
    assert handle.get().status == "completed"
    (delivery,) = pgflow_crashes.deliveries
    assert (delivery.name, delivery.id, delivery.runs, len(delivery.died)) == ("send_receipt", f"job {handle.id}", 2, 3)
    assert MAILS == [7, 7]
