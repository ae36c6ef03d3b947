"""Steps that wait until the test opens a gate and record their runs, and a workflow of them."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

from pgflow import Context, Done, Ok, Unique, Workflow, step
from tests.worker.waiting import PATIENCE

Input = dict[str, Any]


class Gate:
    """Where a step waits for the test, and who came by."""

    begun = Event()
    go = Event()
    calls: list[str] = []

    @classmethod
    def close(cls) -> None:
        """Make it as new."""
        cls.begun.clear()
        cls.go.clear()
        cls.calls.clear()


@step
def first(ctx: Context[Input]) -> Ok:
    Gate.calls.append(f"{ctx.value}.{ctx.step}")
    if ctx.initial.get("gate"):
        Gate.begun.set()
        assert Gate.go.wait(PATIENCE)
    return Ok("done")


@step
async def second(ctx: Context[Input]) -> Ok:
    Gate.calls.append(f"{ctx.value}.{ctx.step}")
    await asyncio.sleep(ctx.initial.get("seconds", 0))
    return Ok("done", {"n": 2})


@step
def third(ctx: Context[Input]) -> Ok:
    Gate.calls.append(f"{ctx.value}.{ctx.step}")
    return Ok("done")


class Trio(Workflow[Input], unique=Unique("trio")):
    initial = first
    transitions = {first: {"done": second}, second: {"done": third}, third: {"done": Done}}
