"""The workflows that real worker processes run in these tests."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Retry, Step, Unique, Wait, Workflow, step

QUICKLY = Retry(max_attempts=5, base=timedelta(milliseconds=10))


class Errand(BaseModel):
    """`log` is a file that gets a line each time a step runs; `hold` one that keeps a step running while it exists."""

    log: str | None = None
    hold: str | None = None
    seconds: float = 0.0


def note(ctx: Context[Errand]) -> None:
    """Leave a line: which step, which attempt, in which process."""
    if ctx.initial.log:
        with Path(ctx.initial.log).open("a") as log:
            log.write(f"{ctx.step} {ctx.attempt} {os.getpid()}\n")


def is_held(ctx: Context[Errand]) -> bool:
    """Whether the step is to go on running."""
    return ctx.initial.hold is not None and Path(ctx.initial.hold).exists()


@step
async def one(ctx: Context[Errand]) -> Ok:
    await asyncio.sleep(ctx.initial.seconds)
    return Ok("done", {"n": 1})


@step
def two(ctx: Context[Errand]) -> Ok:
    return Ok("done", {"n": ctx.steps["one"]["n"] + 1})


@step
async def three(ctx: Context[Errand]) -> Ok:
    await asyncio.sleep(ctx.initial.seconds)
    return Ok("done", {"n": ctx.steps["two"]["n"] + 1})


@step
def four(ctx: Context[Errand]) -> Ok:
    return Ok("done", {"n": ctx.steps["three"]["n"] + 1})


@step
async def five(ctx: Context[Errand]) -> Ok:
    return Ok("done", {"n": ctx.steps["four"]["n"] + 1})


class Line(Workflow[Errand], unique=Unique("line")):
    """Five steps in a row."""

    initial = one
    transitions = {
        one: {"done": two},
        two: {"done": three},
        three: {"done": four},
        four: {"done": five},
        five: {"done": Done},
    }


class Branch(Step):
    """One of ten that run side by side."""

    events = ("done",)
    number: int

    async def execute(self, ctx: Context[Errand]) -> Ok:
        await asyncio.sleep(ctx.initial.seconds)
        return Ok("done", {"n": self.number})


BRANCHES = [Branch(number=number).named(f"branch_{number}") for number in range(10)]


@step
async def spread(ctx: Context[Errand]) -> Ok:
    return Ok("done")


@step
async def gather(ctx: Context[Errand]) -> Ok:
    return Ok("done", {"sum": sum(ctx.steps[branch.key]["n"] for branch in BRANCHES)})


class Fan(Workflow[Errand], unique=Unique("fan")):
    """Ten branches that join again."""

    initial = spread
    transitions = {
        spread: {"done": BRANCHES},
        **{branch: {"done": gather} for branch in BRANCHES},
        gather: {"done": Done},
    }


@step(retry=QUICKLY)
def hold(ctx: Context[Errand]) -> Ok:
    """Block a thread as long as the file is there."""
    note(ctx)
    while is_held(ctx):
        time.sleep(0.01)
    return Ok("done", {"attempt": ctx.attempt})


@step(retry=QUICKLY)
async def hold_async(ctx: Context[Errand]) -> Ok:
    """Wait, on the event loop, as long as the file is there."""
    note(ctx)
    while is_held(ctx):  # noqa: ASYNC110 -- another process removes it
        await asyncio.sleep(0.01)
    return Ok("done", {"attempt": ctx.attempt})


@step(retry=QUICKLY)
async def hog(ctx: Context[Errand]) -> Ok:
    """Keep the event loop itself from running as long as the file is there."""
    note(ctx)
    while is_held(ctx):
        time.sleep(0.01)  # noqa: ASYNC251 -- the mistake that the worker has to survive
    return Ok("done", {"attempt": ctx.attempt})


@step(retry=QUICKLY)
def clutch(ctx: Context[Errand]) -> Ok:
    """Keep the interpreter's lock for so many seconds the first time, as a C extension may that never lets it go."""
    note(ctx)
    if Path(ctx.initial.log or "").read_text().count("clutch") == 1:
        ctypes.PyDLL(None).usleep(int(1e6 * ctx.initial.seconds))
    return Ok("done")


@step(retry=QUICKLY, transactional=True)
def hold_books(ctx: Context[Errand]) -> Ok:
    """Write in the step's own transaction, then block as long as the file is there."""
    ctx.conn.execute("insert into ledger (value, attempt) values (%s, %s)", [ctx.value, ctx.attempt])
    note(ctx)
    while is_held(ctx):
        time.sleep(0.01)
    return Ok("done")


@step
def after(ctx: Context[Errand]) -> Ok:
    note(ctx)
    return Ok("done")


class Held(Workflow[Errand], unique=Unique("held")):
    """A sync step that blocks, and one after it."""

    initial = hold
    transitions = {hold: {"done": after}, after: {"done": Done}}


class HeldAsync(Workflow[Errand], unique=Unique("held")):
    """An async step that waits, and one after it."""

    initial = hold_async
    transitions = {hold_async: {"done": after}, after: {"done": Done}}


class Hogged(Workflow[Errand], unique=Unique("held")):
    """An async step that blocks the event loop, and one after it."""

    initial = hog
    transitions = {hog: {"done": after}, after: {"done": Done}}


class Books(Workflow[Errand], unique=Unique("books")):
    """A transactional step that blocks, and one after it."""

    initial = hold_books
    transitions = {hold_books: {"done": after}, after: {"done": Done}}


class Clutched(Workflow[Errand], unique=Unique("clutched")):
    """A step that keeps every other thread from running, and one after it."""

    initial = clutch
    transitions = {clutch: {"done": after}, after: {"done": Done}}


pause = Wait(timedelta(seconds=2)).named("pause")


class Paused(Workflow[Errand], unique=Unique("paused")):
    """A timer of two seconds, and a step after it."""

    initial = pause
    transitions = {pause: {"timeout": after}, after: {"done": Done}}


@step(retry=Retry(max_attempts=2, base=timedelta(milliseconds=10)))
def crash(ctx: Context[Errand]) -> Ok:
    """End the whole process, as a segmentation fault or the kernel's memory killer would."""
    note(ctx)
    os._exit(1)


class Deadly(Workflow[Errand], unique=Unique("deadly")):
    """A step that kills its worker."""

    initial = crash
    transitions = {crash: {"done": Done}}


WORKFLOWS = (Line, Fan, Held, HeldAsync, Hogged, Books, Clutched, Paused, Deadly)
app = Pgflow(workflows=WORKFLOWS)
