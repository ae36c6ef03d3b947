"""A repeated call with the same idempotency key does nothing again on PostgreSQL; in memory the key is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.errors import AlreadyRunning, ConfigError, InvalidValue, KeyReused, NotActive
from pgflow.local import Local
from tests.stacks import flows
from tests.stacks.conftest import Stack
from tests.stacks.flows import Anyone, Asking, Fallible, Linear, Repeating, again, answer, last

WORKFLOWS = flows.WORKFLOWS


@pytest.fixture
def app(postgres: Pgflow) -> Pgflow:
    """Only PostgreSQL: a `Local` stores no answers."""
    for workflow in postgres.workflows:
        workflow.bind(postgres)
    return postgres


def test_a_start_takes_effect_once_also_after_the_instance_has_ended(stack: Stack) -> None:
    first = Linear.start(stack.value, idempotency_key=f"start {stack.value}")
    assert Linear.start(stack.value, idempotency_key=f"start {stack.value}") == first
    stack.until(Linear)
    assert Linear.start(stack.value, idempotency_key=f"start {stack.value}") == first
    assert [each.run for each in Linear.runs(stack.value)] == [first.run]
    assert Linear.start(stack.value).run != first.run


def test_start_many_takes_effect_once_also_with_scope_none(stack: Stack) -> None:
    before = len(Anyone.list(limit=1000))
    items = [(f"{stack.value}-{number}",) for number in range(3)]
    first = Anyone.start_many(items, idempotency_key=f"many {stack.value}")
    assert asyncio.run(Anyone.astart_many(items, idempotency_key=f"many {stack.value}")) == first
    assert len(Anyone.list(limit=1000)) == before + 3


def test_a_refused_call_does_not_use_its_key(stack: Stack) -> None:
    Asking.start(stack.value)
    Fallible.start(stack.value)
    stack.until(Fallible)
    with pytest.raises(NotActive):
        Fallible.cancel(stack.value, idempotency_key=f"refused {stack.value}")
    Asking.cancel(stack.value, idempotency_key=f"refused {stack.value}")
    assert stack.until(Asking).status == "cancelled"


def test_the_answer_of_a_start_stays_although_the_key_is_free_again(stack: Stack) -> None:
    Asking.start(stack.value)
    for _ in range(2):
        with pytest.raises(AlreadyRunning):
            Asking.start(stack.value, idempotency_key=f"late {stack.value}")
        if stack.until(Asking, "waiting", "cancelled").status == "waiting":
            Asking.cancel(stack.value)
    assert len(Asking.runs(stack.value)) == 1


def test_a_signal_is_sent_once(stack: Stack) -> None:
    Repeating.start(stack.value)
    stack.until(Repeating, "waiting")
    told = [Repeating.resume(stack.value, "answered", {"n": 1}, idempotency_key=f"s {stack.value}") for _ in range(2)]
    told.append(asyncio.run(Repeating.aresume(stack.value, "answered", {"n": 1}, idempotency_key=f"s {stack.value}")))
    assert told == ["delivered"] * 3
    seen = stack.until(Repeating, "waiting")
    assert [wait.step for wait in seen.waiting_for] in ([again.key], [answer.key])
    assert not seen.signals or seen.signals[0].step == answer.key
    Repeating.cancel(stack.value)


def test_a_signal_is_scheduled_and_cancelled_once(app: Any, stack: Stack) -> None:
    Repeating.start(stack.value)
    handles = [
        Repeating.schedule_resume(stack.value, last, timedelta(days=1), idempotency_key=f"later {stack.value}")
        for _ in range(2)
    ]
    assert handles[0] == handles[1]
    assert len(Repeating.get(stack.value).signals) == 1
    gone = [app.unschedule(handles[0].id, idempotency_key=f"off {stack.value}") for _ in range(2)]
    assert gone == [True, True]
    assert app.unschedule(handles[0].id) is False
    Repeating.cancel(stack.value)


def test_a_cancel_and_a_retry_take_effect_once(stack: Stack) -> None:
    Asking.start(stack.value)
    for _ in range(2):
        Asking.cancel(stack.value, idempotency_key=f"cancel {stack.value}")
    Fallible.start(stack.value, {"how": "raises"})
    assert stack.until(Fallible).status == "failed"
    for _ in range(2):
        Fallible.retry(stack.value, idempotency_key=f"retry {stack.value}")
        assert stack.until(Fallible).status == "failed"


def test_a_key_that_was_used_for_something_else_is_refused(stack: Stack) -> None:
    Linear.start(stack.value, idempotency_key=f"one {stack.value}")
    with pytest.raises(KeyReused, match=f"start Linear {stack.value}"):
        Linear.start(f"{stack.value}x", idempotency_key=f"one {stack.value}")
    with pytest.raises(KeyReused):
        Linear.cancel(stack.value, idempotency_key=f"one {stack.value}")


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", "a\0b", 7])
def test_an_invalid_key_is_refused(app: Pgflow, stack: Stack, key: Any) -> None:
    with pytest.raises(InvalidValue, match="idempotency key"):
        Linear.start(stack.value, idempotency_key=key)
    with pytest.raises(InvalidValue, match="idempotency key"):
        app.unschedule(1, idempotency_key=key)
    assert Linear.runs(stack.value) == []


def test_in_memory_a_key_is_refused_by_every_call_that_takes_one(local: Local) -> None:
    local.start(Asking, "keyed")
    calls: list[Callable[[], object]] = [
        lambda: local.start(Linear, "keyed", idempotency_key="k"),
        lambda: local.start_many(Linear, [("keyed",)], idempotency_key="k"),
        lambda: local.resume(Asking, "keyed", "answered", idempotency_key="k"),
        lambda: local.schedule_resume(Repeating, "keyed", last, timedelta(days=1), idempotency_key="k"),
        lambda: local.unschedule(1, idempotency_key="k"),
        lambda: local.cancel(Asking, "keyed", idempotency_key="k"),
        lambda: local.retry(Asking, "keyed", idempotency_key="k"),
        lambda: asyncio.run(local.acancel(Asking, "keyed", idempotency_key="k")),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="Local takes no idempotency_key") as refused:
            call()
        assert "Pgflow(dsn" in (refused.value.hint or "")
    assert local.runs(Linear, "keyed") == []
    local.cancel(Asking, "keyed")
