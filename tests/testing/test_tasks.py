"""Tasks under test: mocked, enqueued and run inline, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pgflow import TaskContext
from pgflow.errors import ConfigError, InvalidValue
from pgflow.local import Local
from pgflow.testing import assert_enqueued, mocked, refute_enqueued, run_inline
from tests.testing.shop import MAILS, TASKS, WORKFLOWS, Declined, OrderFlow, count_stock, send_receipt


@pytest.fixture
def local() -> Iterator[Local]:
    """The shop in memory."""
    MAILS.clear()
    with Local(WORKFLOWS, tasks=TASKS) as app:
        yield app


def test_inline_an_enqueue_runs_at_once_and_raises_what_the_task_raises(local: Local) -> None:
    with run_inline(local):
        handle = send_receipt.enqueue(7, copy=True)
        assert handle.get().status == "completed"
        assert handle.result() == "receipt 7"
        with pytest.raises(Declined, match="no receipt for 13"):
            send_receipt.enqueue(13)
    assert MAILS == [7, 13]


def test_a_task_is_found_by_its_arguments(local: Local) -> None:
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


def test_a_mock_replaces_a_task_and_keeps_the_arguments(local: Local) -> None:
    def count(ctx: TaskContext, shelf: str) -> int:
        return ctx.attempt

    with run_inline(local):
        with mocked(send_receipt, returns="mock") as sent, mocked(count_stock, calls=count):
            assert send_receipt.enqueue(7).result() == "mock"
            assert count_stock.enqueue("shelf").result() == 1
        assert sent.calls == [{"order_id": 7, "copy": False}]
        assert send_receipt.enqueue(8).result() == "receipt 8"
        with mocked(send_receipt, in_turn=[ConnectionError("down"), "sent"]), pytest.raises(ConnectionError):
            send_receipt.enqueue(9)
    assert MAILS == [8]
    with pytest.raises(ConfigError, match="a task has no steps"), mocked(send_receipt, "charge", returns=1):
        raise AssertionError
