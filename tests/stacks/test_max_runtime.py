"""An attempt that still runs after its step's `max_runtime` has failed, on both stacks."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Retry, Step, Unique, Workflow
from tests.stacks.conftest import Stack
from tests.worker.waiting import PATIENCE

MOMENT = timedelta(milliseconds=50)
SOON = Retry(max_attempts=2, base=timedelta(milliseconds=1))
LET_GO = threading.Event()
CANCELLED: list[str] = []


class Dozing(Step):
    """Sleeps for ever in its first attempt; may be cancelled."""

    events = ("done",)
    max_runtime = MOMENT
    retry = SOON

    async def execute(self, ctx: Context[Any]) -> Ok:
        try:
            await asyncio.sleep(0 if ctx.attempt > 1 else 3600)
        except asyncio.CancelledError:
            CANCELLED.append(ctx.value)
            raise
        return Ok("done", {"attempt": ctx.attempt})


class Stuck(Step):
    """Hangs in its thread in its first attempt, until LET_GO is set."""

    events = ("done",)
    max_runtime = MOMENT
    retry = SOON

    def execute(self, ctx: Context[Any]) -> Ok:
        if ctx.attempt == 1:
            LET_GO.wait(PATIENCE)
        return Ok("done", {"attempt": ctx.attempt})


class Saving(Step):
    """Shields its end from being cancelled."""

    events = ("done",)
    max_runtime = MOMENT

    async def execute(self, ctx: Context[Any]) -> Ok:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return Ok("done", {"saved": "what there was"})
        return Ok("done")


class Hopeless(Dozing):
    """Is not retried after it took too long."""

    retry = Retry(never_on=(TimeoutError,))


class Quick(Step):
    """Takes less than it may."""

    events = ("done",)
    max_runtime = timedelta(minutes=1)

    async def execute(self, ctx: Context[Any]) -> Ok:
        return Ok("done", {"attempt": ctx.attempt})


class DozingFlow(Workflow[Any], unique=Unique("dozing")):
    initial = Dozing
    transitions = {Dozing: {"done": Done}}


class StuckFlow(Workflow[Any], unique=Unique("stuck")):
    initial = Stuck
    transitions = {Stuck: {"done": Done}}


class SavingFlow(Workflow[Any], unique=Unique("saving")):
    initial = Saving
    transitions = {Saving: {"done": Done}}


class HopelessFlow(Workflow[Any], unique=Unique("hopeless")):
    initial = Hopeless
    transitions = {Hopeless: {"done": Done}}


class QuickFlow(Workflow[Any], unique=Unique("quick")):
    initial = Quick
    transitions = {Quick: {"done": Done}}


WORKFLOWS = (DozingFlow, StuckFlow, SavingFlow, HopelessFlow, QuickFlow)


@pytest.fixture(autouse=True)
def let_go() -> Any:
    """Leave no thread behind."""
    LET_GO.clear()
    yield
    LET_GO.set()


@pytest.mark.parametrize("workflow", [DozingFlow, StuckFlow])
def test_it_is_retried(stack: Stack, workflow: type[Workflow[Any]]) -> None:
    workflow.start(stack.value, {})
    (entry,) = stack.until(workflow, "completed").history
    (error,) = entry.errors
    assert (error["type"], error["attempt"]) == ("TimeoutError", 1)
    assert error["reason"] == "it still ran after 0:00:00.050000, its max_runtime"
    assert entry.output == {"attempt": 2}
    assert (stack.value in CANCELLED) is (workflow is DozingFlow)


def test_a_policy_can_end_it(stack: Stack) -> None:
    HopelessFlow.start(stack.value, {})
    failed = stack.until(HopelessFlow, "failed")
    assert failed.error is not None
    assert (failed.error["type"], failed.error["attempts"]) == ("TimeoutError", [])


def test_what_it_returns_when_it_is_cancelled_counts(stack: Stack) -> None:
    SavingFlow.start(stack.value, {})
    (entry,) = stack.until(SavingFlow, "completed").history
    assert (entry.output, entry.errors) == ({"saved": "what there was"}, ())


def test_a_step_that_ends_in_time_completes(stack: Stack) -> None:
    QuickFlow.start(stack.value, {})
    (entry,) = stack.until(QuickFlow, "completed").history
    assert (entry.output, entry.errors) == ({"attempt": 1}, ())
