"""The assertions on what is enqueued, and what they show when they fail."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Pgflow
from pgflow.errors import InvalidValue
from pgflow.local import Local
from pgflow.testing import aassert_enqueued, arefute_enqueued, assert_enqueued, drain, refute_enqueued
from tests.testing.shop import WORKFLOWS, OrderFlow, Reminder

MOMENT = datetime(2031, 2, 3, 4, 5, tzinfo=UTC)


def test_a_start_is_found_by_each_of_its_properties(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {"item_count": 3}, at=MOMENT, tags=["gift"])
    OrderFlow.start("b", {"item_count": 4})
    for found in (
        assert_enqueued(OrderFlow, "a"),
        assert_enqueued(OrderFlow, "orderid::a"),
        assert_enqueued(OrderFlow, item_count=3),
        assert_enqueued(OrderFlow, input={"item_count": 3, "card": "good"}),
        assert_enqueued(OrderFlow, tags=["gift", "orders"]),
        assert_enqueued(OrderFlow, at=MOMENT + timedelta(seconds=0.5)),
        assert_enqueued(OrderFlow, at=MOMENT + timedelta(minutes=5), within=timedelta(minutes=10)),
        assert_enqueued(OrderFlow, "a", queue="default", app=pgflow_app),
    ):
        assert (found.id, found.at, found.input["item_count"]) == ("orderid::a", MOMENT, 3)
    assert assert_enqueued(OrderFlow).id == "orderid::b"
    for refuted in (
        {"queue": "payments"},
        {"tags": ["gift"], "item_count": 4},
        {"item_count": 5},
        {"at": MOMENT + timedelta(minutes=5)},
    ):
        refute_enqueued(OrderFlow, **refuted)
    refute_enqueued(Reminder)
    refute_enqueued(OrderFlow, "c")


def test_a_start_that_a_worker_has_begun_is_not_enqueued(pgflow_app: Pgflow) -> None:
    OrderFlow.start("a", {"card": "refused"})
    OrderFlow.start("b", {})
    drain(pgflow_app)
    refute_enqueued(OrderFlow)
    OrderFlow.start("c", {})
    drain(pgflow_app, "default")
    refute_enqueued(OrderFlow)


def test_the_message_shows_what_is_enqueued(pgflow_app: Pgflow) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(OrderFlow, "abc", item_count=3, queue="mail", at=MOMENT, tags=["gift"])
    assert str(caught.value) == (
        'OrderFlow abc queue=mail at=2031-02-03T04:05:00+00:00 tags=gift input={"item_count": 3} is not enqueued. '
        "Nothing is."
    )
    Reminder.start("r", at=MOMENT)
    OrderFlow.start("a", {"item_count": 4}, at=MOMENT, tags=["gift"])
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(Reminder, kind="x")
    assert str(caught.value) == (
        'Reminder input={"kind": "x"} is not enqueued. There is:\n'
        "  Reminder reminder::r queue=default at=2031-02-03T04:05:00+00:00 input={}\n"
        "  OrderFlow orderid::a queue=default at=2031-02-03T04:05:00+00:00 tags=orders,gift "
        'input={"card": "good", "item_count": 4}'
    )
    with pytest.raises(AssertionError) as caught:
        refute_enqueued(OrderFlow, item_count=4)
    assert str(caught.value).startswith('OrderFlow input={"item_count": 4} is enqueued:\n  OrderFlow orderid::a ')
    OrderFlow.start_many([(f"v{number}", {}) for number in range(30)])
    with pytest.raises(AssertionError, match="and 11 more"):
        refute_enqueued(OrderFlow)


def test_a_transaction_that_is_rolled_back_enqueues_nothing(
    pgflow_app: Pgflow, pgflow_conn: psycopg.Connection[Any]
) -> None:
    OrderFlow.start("a", {}, conn=pgflow_conn)
    refute_enqueued(OrderFlow)
    assert_enqueued(OrderFlow, "a", conn=pgflow_conn)
    with pytest.raises(AssertionError, match="orderid::a"):
        refute_enqueued(OrderFlow, conn=pgflow_conn)


def test_in_a_coroutine_they_read_an_async_transaction(pgflow_app: Pgflow) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(pgflow_app.dsn) as conn:
            await OrderFlow.astart("a", {}, conn=conn)
            await aassert_enqueued(OrderFlow, "a", conn=conn)
            await arefute_enqueued(OrderFlow, "a")
            with pytest.raises(AssertionError, match="Nothing is"):
                await aassert_enqueued(OrderFlow, "a")
            await conn.rollback()

    asyncio.run(main())


def test_in_memory_a_start_counts_also_after_it_has_begun() -> None:
    with Local(workflows=WORKFLOWS) as app:
        OrderFlow.start("a", {"item_count": 3})
        OrderFlow.start("b", {}, delay=timedelta(days=1), tags=["gift"])
        app.settle()
        assert_enqueued(OrderFlow, "a", item_count=3)
        found = assert_enqueued(OrderFlow, "b", tags=["gift"])
        assert found.at - app.now > timedelta(hours=23)
        refute_enqueued(Reminder)


def test_their_signatures_are_documented() -> None:
    names = [*inspect.signature(assert_enqueued).parameters]
    assert names[:3] == ["what", "value", "input"]
    assert assert_enqueued.__doc__ is not None
    assert assert_enqueued.__name__ == "assert_enqueued"


def test_wrong_searches_are_refused(pgflow_app: Pgflow) -> None:
    with pytest.raises(InvalidValue, match="at must be an aware datetime"):
        assert_enqueued(OrderFlow, at=datetime(2030, 1, 1))  # noqa: DTZ001 -- the wrong value
    with pytest.raises(InvalidValue, match="tags must be a list"):
        refute_enqueued(OrderFlow, tags="gift")
    with pytest.raises(InvalidValue, match="either input or fields of it, not both: card"):
        refute_enqueued(OrderFlow, input={}, card="x")
