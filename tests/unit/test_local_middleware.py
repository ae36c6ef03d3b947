"""Middleware in memory: the same functions as under a worker, around the same steps."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Proceed, Result, Retry, StepCall, Unique, Workflow, step
from pgflow.errors import ConfigError
from pgflow.local import Local

Input = dict[str, Any]
ONCE_MORE = Retry(max_attempts=2, base=timedelta(0))
TRACE: ContextVar[str] = ContextVar("TRACE", default="unset")


@step(retry=ONCE_MORE)
def sync_step(ctx: Context[Input]) -> Ok:
    return Ok("done", TRACE.get())


@step(retry=ONCE_MORE)
async def async_step(ctx: Context[Input]) -> Ok:
    return Ok("done", TRACE.get())


@step(retry=ONCE_MORE)
def raising(ctx: Context[Input]) -> Ok:
    raise ValueError("no")


class Pair(Workflow[Input], unique=Unique("pair")):
    initial = sync_step
    transitions = {sync_step: {"done": async_step}, async_step: {"done": Done}}


class Raising(Workflow[Input], unique=Unique("raising")):
    initial = raising
    transitions = {raising: {"done": Done}}


def test_it_runs_around_sync_and_async_steps_the_first_outermost() -> None:
    seen: list[str] = []

    async def outer(call: StepCall, proceed: Proceed) -> Result:
        seen.append(f"outer {call.ctx.step}")
        TRACE.set(f"trace of {call.ctx.value}")
        return await proceed()

    async def inner(call: StepCall, proceed: Proceed) -> Result:
        seen.append(f"inner {call.ctx.step}")
        assert (call.queue, call.worker) == (None, None)
        return await proceed()

    with Local(workflows=[Pair], middleware=[outer, inner]) as app:
        Pair.start("v", {})
        app.drain(timeout=10)
        assert Pair.get("v").steps == {"sync_step": "trace of v", "async_step": "trace of v"}
    steps = ("sync_step", "async_step")
    assert seen == [f"{name} {step}" for step in steps for name in ("outer", "inner")]


def test_it_sees_exceptions_and_may_replace_them() -> None:
    seen: list[BaseException] = []

    async def forgiving(call: StepCall, proceed: Proceed) -> Result:
        try:
            return await proceed()
        except ValueError as error:
            seen.append(error)
            if call.ctx.attempt == 1:
                raise
            return Ok("done", "forgiven")

    with Local(workflows=[Raising], middleware=[forgiving]) as app:
        Raising.start("v", {})
        app.drain(timeout=10)
        (entry,) = Raising.get("v").history
    assert (entry.output, entry.attempt) == ("forgiven", 2)
    assert [(error["type"], error["reason"]) for error in entry.errors] == [("ValueError", "no")]
    assert [str(error) for error in seen] == ["no", "no"]


def test_what_cannot_be_called_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(ConfigError, match="middleware must be async functions, got int"):
        Local(workflows=[Pair], middleware=[wrong])
