"""Cancellation, progress, checkpoints and idempotency keys of running steps, on both stacks."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from pgflow import Context, Done, Ok, Retry, Unique, Workflow, step
from pgflow.core.definition.control import Progress
from pgflow.errors import InvalidPayload, InvalidValue, NotActive
from tests.stacks.conftest import Stack
from tests.worker.waiting import PATIENCE, until

Input = dict[str, Any]
MOMENT = timedelta(milliseconds=5)
GO: dict[str, threading.Event] = {}
SEEN: dict[str, list[Any]] = {}
REPAIRED: set[str] = set()


@pytest.fixture
def stack(stack: Stack) -> Any:
    """Leave no thread behind."""
    GO[stack.value], SEEN[stack.value] = threading.Event(), []
    yield stack
    GO[stack.value].set()


@step
def watch(ctx: Context[Input]) -> Ok:
    ctx.progress(0.25, "a\nquarter")
    SEEN[ctx.value].append("begun")
    while not ctx.cancelled and not GO[ctx.value].wait(0.01):
        pass
    SEEN[ctx.value].append(("cancelled", ctx.cancelled))
    if ctx.cancelled:
        try:
            ctx.checkpoint("too late")
        except NotActive as error:
            SEEN[ctx.value].append(str(error))
    return Ok("done")


@step
async def sleep(ctx: Context[Input]) -> Ok:
    SEEN[ctx.value].append("begun")
    try:
        await asyncio.sleep(PATIENCE)
    except asyncio.CancelledError:
        SEEN[ctx.value].append(("cancelled", ctx.cancelled))
        raise
    return Ok("done")


@step(max_runtime=timedelta(milliseconds=50), retry=Retry(max_attempts=1))
def overdue(ctx: Context[Input]) -> Ok:
    while not ctx.cancelled and not GO[ctx.value].wait(0.01):
        pass
    SEEN[ctx.value].append(("cancelled", ctx.cancelled))
    return Ok("done")


@step(retry=Retry(max_attempts=3, base=MOMENT))
def pages(ctx: Context[Input]) -> Ok:
    SEEN[ctx.value].append((ctx.attempt, ctx.checkpointed, ctx.idempotency_key))
    begun = (ctx.checkpointed or {"page": 0})["page"]
    for page in range(begun, 3):
        ctx.checkpoint({"page": page + 1})
        assert ctx.checkpointed == {"page": page + 1}
        if page < 2 or ctx.value not in REPAIRED:
            raise OSError(f"after page {page}")
    return Ok("done")


@step(retry=Retry(max_attempts=2, base=MOMENT, on_exhausted="pause"))
async def pages_async(ctx: Context[Input]) -> Ok:
    SEEN[ctx.value].append((ctx.attempt, ctx.checkpointed))
    if ctx.attempt == 1:
        with pytest.raises(InvalidPayload, match="checkpoint"):
            await ctx.acheckpoint(object())
        with pytest.raises(InvalidPayload, match="checkpoint"):
            await ctx.acheckpoint("x" * 70_000)
    await ctx.acheckpoint([ctx.attempt, "✓"])
    if ctx.attempt < 3:
        raise OSError("again")
    return Ok("done")


@step
def after(ctx: Context[Input]) -> Ok:
    SEEN[ctx.value].append((ctx.step, ctx.checkpointed, ctx.idempotency_key))
    return Ok("done")


class WatchFlow(Workflow[Input], unique=Unique("watch")):
    initial = watch
    transitions = {watch: {"done": Done}}


class SleepFlow(Workflow[Input], unique=Unique("sleep")):
    initial = sleep
    transitions = {sleep: {"done": Done}}


class OverdueFlow(Workflow[Input], unique=Unique("overdue")):
    initial = overdue
    transitions = {overdue: {"done": Done}}


class PagesFlow(Workflow[Input], unique=Unique("pages")):
    initial = pages
    transitions = {pages: {"done": after}, after: {"done": Done}}


class AsyncFlow(Workflow[Input], unique=Unique("pages")):
    initial = pages_async
    transitions = {pages_async: {"done": after}, after: {"done": Done}}


WORKFLOWS = (WatchFlow, SleepFlow, OverdueFlow, PagesFlow, AsyncFlow)


@pytest.mark.parametrize("workflow", [WatchFlow, SleepFlow])
def test_a_running_step_sees_that_its_instance_is_cancelled(stack: Stack, workflow: type[Workflow[Input]]) -> None:
    workflow.start(stack.value, {})
    seen = SEEN[stack.value]
    until(lambda: seen, "the step")
    workflow.cancel(stack.value)
    until(lambda: ("cancelled", True) in seen, "the cancel")
    if workflow is WatchFlow:
        until(lambda: len(seen) == 3, "the refusal of a checkpoint")
        assert seen[2].startswith("the checkpoint is not stored: the job was cancelled")
    assert workflow.get(stack.value).history == ()


def test_a_sync_step_sees_that_its_max_runtime_has_passed(stack: Stack) -> None:
    OverdueFlow.start(stack.value, {})
    stack.until(OverdueFlow, "failed")
    until(lambda: SEEN[stack.value] == [("cancelled", True)], "the step's end")


def test_progress_is_shown_while_a_step_runs(stack: Stack, app: Any) -> None:
    WatchFlow.start(stack.value, {})
    (wait,) = until(lambda: [each for each in WatchFlow.get(stack.value).waiting_for if each.progress], "the progress")
    assert (wait.kind, wait.progress) == ("running", Progress(0.25, "a quarter"))
    run = WatchFlow.get(stack.value).run
    assert [each.progress for each in app.jobs(WatchFlow) if each.run == run] == [wait.progress]
    (listed,) = [each for each in WatchFlow.list(status="running") if each.run == run]
    assert listed.waiting_for[0].progress == wait.progress
    GO[stack.value].set()
    stack.until(WatchFlow, "completed")


def test_a_checkpoint_survives_retries_and_the_retry_of_its_instance(stack: Stack) -> None:
    PagesFlow.start(stack.value, {})
    failed = stack.until(PagesFlow, "failed")
    assert failed.error is not None
    assert "checkpoint" not in failed.error
    REPAIRED.add(stack.value)
    PagesFlow.retry(stack.value)
    stack.until(PagesFlow, "completed")
    *attempts, (_, checkpoint, other_key) = SEEN[stack.value]
    assert [(attempt, stored) for attempt, stored, _ in attempts] == [
        (1, None),
        (2, {"page": 1}),
        (3, {"page": 2}),
        (1, {"page": 3}),
    ]
    assert checkpoint is None
    (key,) = {key for _, _, key in attempts}
    assert str(UUID(key)) == key
    assert key != other_key


def test_a_checkpoint_survives_a_pause_in_an_async_step(stack: Stack) -> None:
    AsyncFlow.start(stack.value, {})
    stack.until(AsyncFlow, "waiting")
    AsyncFlow.retry(stack.value)
    stack.until(AsyncFlow, "completed")
    assert SEEN[stack.value][:3] == [(1, None), (2, [1, "✓"]), (3, [2, "✓"])]
    assert SEEN[stack.value][3][:2] == ("after", None)


def test_the_key_differs_between_runs() -> None:
    keys = {
        Context({}, id=id, run=run, workflow="W", step=name).idempotency_key
        for id, run, name in [("a::1", 1, "x"), ("a::1", 2, "x"), ("a::2", 1, "x"), ("a::1", 1, "y")]  # noqa: A001
    }
    assert len(keys) == 4


# -- bad input, and unit tests of steps


@pytest.mark.parametrize("at", [-0.1, 1.1, float("nan"), True, "0.5", None, 10**400])
def test_a_progress_out_of_range_is_refused(at: Any) -> None:
    with pytest.raises(InvalidValue, match="progress must be a number from 0 to 1"):
        Context({}).progress(at)
    with pytest.raises(InvalidValue, match="note of a progress must be a string"):
        Context({}).progress(0.5, None)  # type: ignore[arg-type]


def test_a_context_alone_keeps_progress_and_checkpoint() -> None:
    ctx = Context(None)
    ctx.progress(1, "x" * 1000)
    ctx.checkpoint({"page": 1})
    assert ctx.checkpointed == {"page": 1}
    assert not ctx.cancelled
    assert ctx.control.latest is not None
    assert len(ctx.control.latest.note) <= 200
