"""Group E: what callers read about an instance, and what its steps receive."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from pgflow import Context, Done, Error, Instance, Ok, Retry, Unique, Workflow
from pgflow.errors import InvalidInput, InvalidPayload, InvalidValue, UnknownWorkflow
from tests.conformance.conftest import Stack
from tests.conformance.definitions import Input, chain, make

A = make("a")
HOUR = timedelta(hours=1)


class Order(BaseModel):
    model_config = ConfigDict(frozen=True)
    count: int


class Ordering(Workflow[Order], unique=Unique("orderid")):
    initial = A
    transitions = {A: {"done": Done}}


def test_e1_a_start_validates_its_arguments(stack: Stack) -> None:
    """E1: workflow, version, input, value and metadata of a start are validated; an invalid start stores nothing."""
    app = stack.run(Ordering)
    wrong: Any
    for wrong in (None, {}, {"count": "many"}, {"size": 3}, [], "x", 3):
        with pytest.raises(InvalidInput, match="Ordering: the input does not fit Order"):
            Ordering.start("v", wrong)
    for wrong in (0, -1, 2, "1", True):
        with pytest.raises(InvalidValue, match="Ordering is not a versioned workflow; it only supports version 1"):
            Ordering.start("v", Order(count=1), version=wrong)
    for wrong in (None, 3, "", "two words"):
        with pytest.raises(InvalidValue, match="business value"):
            Ordering.start(wrong, Order(count=1))
    for wrong in (timedelta.max, timedelta(days=365 * 9000), timedelta.min, 3):
        with pytest.raises(InvalidValue, match="an instance cannot start after"):
            Ordering.start("v", Order(count=1), delay=wrong)
    with pytest.raises(InvalidPayload, match="metadata"):
        Ordering.start("v", Order(count=1), metadata={"x": object()})
    with pytest.raises(UnknownWorkflow):
        app.start(chain(A, name="Stranger"), "v", {})
    assert Ordering.list() == []


def test_e2_a_new_instance_has_these_defaults(stack: Stack) -> None:
    """E2: every field of an instance that was just started has its default."""
    flow = chain(A)
    stack.run(flow)
    before = datetime.now(UTC)
    started = flow.start("v", delay=HOUR)
    seen = flow.get("v")
    (waits,) = seen.waiting_for
    assert seen == Instance(
        run=started.run,
        id="k::v",
        workflow="Flow",
        version=1,
        status="pending",
        input={},
        steps={},
        history=(),
        waiting_for=(waits,),
        metadata={},
        tags=(),
        error=None,
        created_at=seen.created_at,
        finished_at=None,
    )
    assert (waits.step, waits.kind, waits.attempt, waits.max_attempts, waits.error) == ("a", "queue", 0, 5, None)
    assert (seen.is_active, seen.active_steps, seen.completed_steps) == (True, frozenset("a"), ())
    assert abs(seen.created_at - before) < timedelta(seconds=20)
    assert waits.until is not None
    assert abs(waits.until - seen.created_at - HOUR) < timedelta(seconds=20)


def spoil(ctx: Context[Input]) -> Ok:
    """Try to change everything that a step can reach."""
    ctx.initial["order"]["count"] = ctx.initial["new"] = "spoilt"
    ctx.steps["first"]["list"].append("spoilt")
    ctx.metadata["deep"]["x"] = "spoilt"
    refused = []
    mapping: Any
    for mapping in (ctx.steps, ctx.metadata):
        try:
            mapping["new"] = "spoilt"
        except TypeError:
            refused.append("item")
    for name in ("initial", "steps", "attempt"):
        try:
            setattr(ctx, name, "spoilt")
        except AttributeError:
            refused.append(name)
    return Ok("done", refused)


def look(ctx: Context[Input]) -> Ok:
    return Ok("done", {"initial": ctx.initial, "first": ctx.steps["first"], "metadata": dict(ctx.metadata)})


def test_e3_a_step_cannot_change_what_others_see(stack: Stack) -> None:
    """E3: a step cannot change the input, outputs or metadata that other steps read."""
    first = make("first", act=lambda ctx: Ok("done", {"list": [1]}, {"deep": {"x": 1}}))
    flow = chain(first, make("spoil", act=spoil), make("look", act=look))
    stack.run(flow)
    flow.start("v", {"order": {"count": 1}})
    done = stack.until(flow, "v")
    assert done.steps["spoil"] == ["item", "item", "initial", "steps", "attempt"]
    seen = {"initial": {"order": {"count": 1}}, "first": {"list": [1]}, "metadata": {"deep": {"x": 1}}}
    assert done.steps["look"] == seen
    assert (done.input, done.steps["first"], done.metadata) == tuple(seen.values())


def test_e3_a_typed_input_is_an_instance_of_the_declared_model(stack: Stack) -> None:
    """E3: a workflow that declares a frozen model as its input gives it to each step, unchangeable."""

    def act(ctx: Context[Order]) -> Ok:
        with pytest.raises(ValueError, match="frozen"):
            ctx.initial.count = 3  # type: ignore[misc] # the very thing that is refused
        return Ok("done", {"count": ctx.initial.count})

    step = make("act", act=act)

    class Frozen(Workflow[Order], unique=Unique("k")):
        initial = step
        transitions = {step: {"done": Done}}

    stack.run(Frozen)
    Frozen.start("v", Order(count=7))
    assert stack.until(Frozen, "v").steps == {"act": {"count": 7}}


@pytest.mark.parametrize("value", ["abc123", "ORD-2024_001", "Ann@example.com", "a:b", "ä", "x" * 200, "%_\\'\""])
def test_e4_an_id_is_kept_verbatim(stack: Stack, value: str) -> None:
    """E4: an id is the key and the value exactly as given, and finds its instance again."""
    flow = chain(make("a", act=lambda ctx: Ok("done", {"id": ctx.id, "value": ctx.value})), unique=Unique("key_2"))
    stack.run(flow)
    assert flow.start(value).id == f"key_2::{value}"
    done = stack.until(flow, value)
    assert (done.id, done.steps["a"]) == (f"key_2::{value}", {"id": f"key_2::{value}", "value": value})
    assert flow.get(done.id) == done


def test_e5_the_history_has_an_entry_for_each_completion_in_order(stack: Stack) -> None:
    """E5: five steps make five entries, in order, each with step, event, time, attempt, output and metadata."""

    def act(ctx: Context[Input]) -> Ok | Error:
        if ctx.step == "s3" and ctx.attempt == 1:
            return Error("not yet")
        return Ok("done", {"step": ctx.step}, {"last": ctx.step})

    soon = Retry(base=timedelta(milliseconds=1))
    names = [f"s{number}" for number in range(1, 6)]
    flow = chain(*(make(name, act=act, retry=soon) for name in names))
    stack.run(flow)
    flow.start("v")
    done = stack.until(flow, "v")
    assert [(entry.step, entry.event, entry.output, entry.metadata) for entry in done.history] == [
        (name, "done", {"step": name}, {"last": name}) for name in names
    ]
    assert [entry.attempt for entry in done.history] == [1, 1, 2, 1, 1]
    assert [[error["reason"] for error in entry.errors] for entry in done.history] == [[], [], ["not yet"], [], []]
    assert done.finished_at is not None
    moments = [done.created_at, *(entry.at for entry in done.history), done.finished_at]
    assert moments == sorted(moments)
    assert all(moment.tzinfo is not None for moment in moments)
    assert {name: {"step": name} for name in names} == done.steps


def test_e6_a_failure_is_stored_with_its_step_and_reason(stack: Stack) -> None:
    """E6: a failed instance has the failed step, the reason and the attempt; a later success has no error."""

    def act(ctx: Context[Input]) -> Ok:
        if broken:
            raise ConnectionError("the printer is on fire")
        return Ok("done")

    broken = True
    flow = chain(A, make("act", act=act, retry=Retry(max_attempts=2, base=timedelta(milliseconds=1))))
    stack.run(flow)
    flow.start("v")
    failed = stack.until(flow, "v")
    assert failed.error is not None
    error: Mapping[str, Any] = failed.error
    assert (failed.status, error["step"], error["reason"]) == ("failed", "act", "the printer is on fire")
    assert (error["type"], error["attempt"]) == ("ConnectionError", 2)
    assert [(each["attempt"], each["reason"]) for each in error["attempts"]] == [(1, "the printer is on fire")]
    assert (failed.completed_steps, failed.active_steps, failed.is_active) == (("a",), frozenset(), False)
    broken = False
    flow.retry("v")
    assert stack.until(flow, "v", "completed").error is None
