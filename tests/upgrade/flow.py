"""The workflow of each release's workers and callers: copied into its tree, with features of all releases only."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Unique, Wait, WaitForEvent, Workflow, step

Input = dict[str, Any]


def note(ctx: Context[Input]) -> None:
    """Append value, step, attempt and release to the log that the environment names."""
    line = f"{ctx.value} {ctx.step} {ctx.attempt} {os.environ['RELEASE']}\n"
    with Path(os.environ["STEPS"]).open("a") as log:
        log.write(line)


@step
def begin(ctx: Context[Input]) -> Ok:
    note(ctx)
    return Ok("done", {"n": 1})


@step
async def left(ctx: Context[Input]) -> Ok:
    note(ctx)
    await asyncio.sleep(ctx.initial.get("seconds", 0))
    return Ok("done", {"n": 2})


@step
def right(ctx: Context[Input]) -> Ok:
    note(ctx)
    hold = ctx.initial.get("hold")
    while hold and Path(hold).exists():
        pause.wait()
    return Ok("done", {"n": 3})


@step
async def join(ctx: Context[Input]) -> Ok:
    note(ctx)
    return Ok("done", {"n": ctx.steps["left"]["n"] + ctx.steps["right"]["n"]})


@step(transactional=True)
def book(ctx: Context[Input]) -> Ok:
    note(ctx)
    ctx.conn.execute("insert into public.bookings (value) values (%s)", [ctx.value])
    return Ok("done", {"n": ctx.steps["join"]["n"] + 1})


class Moment:
    """A short wait."""

    def wait(self) -> None:
        """Wait a little."""
        asyncio.run(asyncio.sleep(0.02))


pause = Moment()
timer = Wait(timedelta(milliseconds=50)).named("timer")
confirmation = WaitForEvent("confirmed").named("confirmation")


class Load(Workflow[Input], unique=Unique("load")):
    """A fork, a join, a timer, a signal, and a step that writes in the transaction of its result."""

    initial = begin
    transitions = {
        begin: {"done": [left, right]},
        left: {"done": join},
        right: {"done": join},
        join: {"done": timer},
        timer: {"timeout": confirmation},
        confirmation: {"received": book},
        book: {"done": Done},
    }


app = Pgflow(workflows=[Load])
