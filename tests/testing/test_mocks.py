"""`mocked` replaces a step in one workflow, in memory and on PostgreSQL, and restores it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Error, Ok, Pgflow, Result, Snooze, Unique, Workflow
from pgflow.errors import ConfigError, UndeclaredEvent, UnknownStep
from pgflow.local import Local
from pgflow.testing import drain, mocked, run_inline
from tests.testing.shop import CHARGES, PARCELS, WORKFLOWS, Order, OrderFlow, charge, ship, validate
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until


class Gift(Workflow[Order], unique=Unique("giftid")):
    """The same step in another workflow."""

    initial = charge
    transitions = {charge: {"paid": Done, "declined": Done}}


@pytest.fixture(params=["local", "postgres"])
def app(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An app of each kind, in which calls run at once."""
    if request.param == "local":
        with Local(workflows=[*WORKFLOWS, Gift]) as local, run_inline(local):
            yield local
    else:
        postgres = request.getfixturevalue("pgflow_app")
        postgres.adopt(Gift)
        with run_inline(postgres):
            yield postgres


def test_a_mock_returns_a_result_in_one_workflow_and_keeps_the_contexts(app: Any) -> None:
    CHARGES.clear()
    with mocked(OrderFlow, charge, returns=Ok("paid", {"receipt": "mock"})) as charged:
        OrderFlow.start("a", {"item_count": 3})
        Gift.start("g", {})
    OrderFlow.start("b", {})
    assert [(ctx.value, ctx.initial.item_count) for ctx in charged.calls] == [("a", 3)]
    assert OrderFlow.get("a").steps["charge"] == {"receipt": "mock"}
    assert OrderFlow.get("b").steps["charge"] == {"receipt": "r-b"}
    assert CHARGES == ["g", "b"]


def test_a_mock_of_a_sync_step_a_class_or_a_key_may_call_a_function(app: Any) -> None:
    def check(ctx: Context[Order]) -> Ok:
        return Ok("invalid" if ctx.value == "a" else "valid")

    PARCELS.clear()
    with (
        mocked(OrderFlow, "validate", calls=check),
        mocked(OrderFlow, type(ship), returns=Ok("shipped", {"by": "mock"})),
    ):
        OrderFlow.start_many([("a", {}), ("b", {})])
    assert [OrderFlow.get(value).completed_steps for value in "ab"] == [
        ("validate", "done"),
        ("validate", "charge", "ship", "done"),
    ]
    assert PARCELS == []


def test_a_mock_of_an_async_step_may_call_an_async_function(app: Any) -> None:
    async def pay(ctx: Context[Order]) -> Ok:
        await asyncio.sleep(0)
        return Ok("declined")

    with mocked(OrderFlow, charge, calls=pay):
        OrderFlow.start("a", {})
    assert OrderFlow.get("a").history[-1].event == "declined"


def test_a_mock_raises_and_the_workflow_retries_as_declared(app: Any) -> None:
    with mocked(OrderFlow, charge, raises=RuntimeError("the gateway is down")) as charged:
        with pytest.raises(RuntimeError, match="the gateway is down"):
            OrderFlow.start("a", {})
        (wait,) = OrderFlow.get("a").waiting_for
        assert (wait.kind, wait.attempt, wait.error) == ("retry", 1, "RuntimeError: the gateway is down")
    assert len(charged.calls) == 1


def test_a_sequence_of_results_is_used_in_turn(pgflow_app: Pgflow) -> None:
    answers: list[Result] = [Snooze(timedelta(0)), Error("declined once", retry=False), Ok("paid")]
    with mocked(OrderFlow, charge, in_turn=answers) as charged:
        OrderFlow.start_many([("a", {}), ("b", {}), ("c", {})])
        drained = drain(pgflow_app)
        assert (len(charged.calls), drained.snoozed) == (4, 1)
        assert {OrderFlow.get(value).status for value in "abc"} == {"completed", "failed", "running"}
        (retry,) = OrderFlow.list(status="running")
        message = "the mock of charge has 3 result(s), and was called once more"
        assert OrderFlow.get(retry.id).waiting_for[0].error == f"AssertionError: {message}"


def test_nested_mocks_are_restored_in_any_order(pgflow_app: Pgflow) -> None:
    original = OrderFlow.graph.nodes["charge"]
    outer, inner = mocked(OrderFlow, charge, returns=Ok("declined")), mocked(OrderFlow, charge, returns=Ok("paid"))
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    OrderFlow.start("a", {})
    drain(pgflow_app)
    assert OrderFlow.get("a").history[1].event == "paid"
    inner.__exit__(None, None, None)
    assert OrderFlow.graph.nodes["charge"] is original
    with pytest.raises(ZeroDivisionError), mocked(OrderFlow, charge, returns=Ok("paid")):
        raise ZeroDivisionError
    assert OrderFlow.graph.nodes["charge"] is original


def test_a_mock_applies_to_a_worker_that_runs(pgflow_app: Pgflow) -> None:
    with (
        Inside(pgflow_app, {"default": 1, "payments": 1}),
        mocked(OrderFlow, validate, returns=Ok("invalid")) as validated,
    ):
        OrderFlow.start("a", {})
        until(lambda: OrderFlow.get("a").status == "completed")
        assert len(validated.calls) == 1


def test_the_graph_of_a_mocked_workflow_is_the_same() -> None:
    digest, spec = OrderFlow.graph.digest(), OrderFlow.graph.spec()
    with mocked(OrderFlow, charge, returns=Ok("paid")):
        assert (OrderFlow.graph.digest(), OrderFlow.graph.spec()) == (digest, spec)


def test_wrong_mocks_are_refused() -> None:
    before = dict(OrderFlow.graph.nodes)
    for wrong, error, message in (
        ({"step": "chargee", "returns": Ok("paid")}, UnknownStep, "no step 'chargee'"),
        ({"step": charge, "returns": Ok("payed")}, UndeclaredEvent, "no event 'payed'; it declares 'paid', 'declined'"),
        ({"step": charge, "in_turn": [Ok("paid"), Ok("x")]}, UndeclaredEvent, "no event 'x'"),
        (
            {"step": charge, "in_turn": [Ok("paid"), "paid"]},
            ConfigError,
            "a step returns Ok, Async, Error or Snooze, not",
        ),
        ({"step": charge, "in_turn": "paid"}, ConfigError, "in_turn must be a list"),
        ({"step": charge, "returns": "paid"}, ConfigError, "a step returns Ok, Async, Error or Snooze, not 'paid'"),
        ({"raises": KeyError}, ConfigError, "name the step to replace"),
        ({"step": charge, "raises": "boom"}, ConfigError, "'boom' is not an exception"),
        ({"step": charge}, ConfigError, "give one of returns, raises, in_turn, calls, got none"),
        ({"step": charge, "returns": Ok("paid"), "raises": KeyError}, ConfigError, "got returns and raises"),
        ({"step": "done", "raises": KeyError}, ConfigError, "the end of a workflow runs nothing"),
    ):
        with pytest.raises(error, match=message), mocked(OrderFlow, **wrong):
            raise AssertionError(wrong)
    assert OrderFlow.graph.nodes == before
