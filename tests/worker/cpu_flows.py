"""Workflows whose steps run in processes of the pool; each misbehaves in its own way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pgflow import (
    Async,
    Context,
    Done,
    Error,
    Ok,
    Pgflow,
    Retry,
    Snooze,
    Step,
    TaskContext,
    Unique,
    Workflow,
    current_job,
    step,
    task,
)

QUICK = Retry(max_attempts=2, base=timedelta(milliseconds=10))


class Order(BaseModel):
    rows: int
    mark: str = ""


@dataclass
class Sum:
    total: int
    pid: int


@step(cpu=True, output=Sum)
def add(ctx: Context[Order]) -> Ok:
    assert isinstance(ctx.initial, Order)
    assert current_job().task == "Sums.add"
    return Ok("done", Sum(sum(range(ctx.initial.rows)), os.getpid()), metadata={"attempt": ctx.attempt})


class Scale(Step):
    """A step with a configuration, which reads the typed output of another."""

    events = ("done",)
    cpu = True
    by: int = 2

    def execute(self, ctx: Context[Order]) -> Ok:
        return Ok("done", [ctx.output(add).total * self.by, ctx.id, ctx.run, ctx.step, ctx.workflow, ctx.value])


@step(cpu=True)
async def last(ctx: Context[Order]) -> Ok:
    await asyncio.sleep(0)
    return Ok("done", sorted(ctx.steps))


class Sums(Workflow[Order], unique=Unique("sums")):
    initial = add
    transitions = {add: {"done": Scale(by=3)}, Scale(by=3): {"done": last}, last: {"done": Done}}


def mark(ctx: Context[Order], what: object) -> None:
    """Append a line to the file that the instance names."""
    with Path(ctx.initial.mark).open("a") as file:
        file.write(f"{what}\n")


@step(cpu=True, retry=QUICK, max_runtime=timedelta(seconds=2))
def hang(ctx: Context[Order]) -> Ok:
    """Hold Python's global lock in native code, in a process that has started another."""
    if ctx.attempt == 1:
        mark(ctx, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
        mark(ctx, os.getpid())
        sum(range(10**13))
    return Ok("done")


@step(cpu=True)
def hang_for_good(ctx: Context[Order]) -> Ok:
    mark(ctx, os.getpid())
    sum(range(10**13))
    return Ok("done")


@step(cpu=True, retry=QUICK)
def die(ctx: Context[Order]) -> Ok:
    if ctx.attempt == 1:
        if ctx.initial.mark == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, ctx.initial.mark))
        time.sleep(60)
    return Ok("done", ctx.attempt)


@step(cpu=True, retry=Retry(max_attempts=1000, base=timedelta(milliseconds=1)))
def sturdy(ctx: Context[Order]) -> Ok:
    time.sleep(0.05)
    return Ok("done", ctx.attempt)


class Sturdy(Workflow[Order], unique=Unique("sturdy")):
    initial = sturdy
    transitions = {sturdy: {"done": Done}}


@step(cpu=True, retry=QUICK)
def page(ctx: Context[Order]) -> Ok:
    """Store a checkpoint, report progress, and die; then go on from there."""
    if ctx.checkpointed is None:
        ctx.progress(0.5, "half of it")
        ctx.checkpoint({"page": 7, "by": os.getpid()})
        if ctx.initial.mark:
            mark(ctx, os.getpid())
            time.sleep(60)
        os._exit(1)
    return Ok("done", ctx.checkpointed["page"])


class Pages(Workflow[Order], unique=Unique("pages")):
    initial = page
    transitions = {page: {"done": Done}}


class Refused(Exception):
    """The order is refused."""


@step(cpu=True, retry=Retry(max_attempts=3, base=timedelta(milliseconds=10), never_on=(Refused,)))
def misbehave(ctx: Context[Order]) -> Any:
    match ctx.initial.mark:
        case "raise":
            raise Refused("no more orders")
        case "exit":
            sys.exit("gone")
        case "error":
            return Error("declined", retry=False)
        case "wrong":
            return 7
        case "object":
            return Ok("done", object())
        case "large":
            return Ok("done", "x" * 2_000_000)
        case "fork":
            if os.fork() == 0:
                return Ok("done", "the child")
            os.wait()
            return Ok("done", "the parent")
        case "snooze":
            return Ok("done") if ctx.attempt == 1 and time.time() % 1 > 2 else Snooze(timedelta(hours=1))
        case "wait":
            return Async()
    return Ok("done")


class One(Workflow[Order], unique=Unique("one")):
    """One step that does what the instance asks for."""

    initial = misbehave
    transitions = {misbehave: {"done": Done}}


class Hang(Workflow[Order], unique=Unique("hang")):
    initial = hang
    transitions = {hang: {"done": Done}}


class HangForGood(Workflow[Order], unique=Unique("good")):
    initial = hang_for_good
    transitions = {hang_for_good: {"done": Done}}


class Die(Workflow[Order], unique=Unique("die")):
    initial = die
    transitions = {die: {"done": Done}}


@step
def plain(ctx: Context[Order]) -> Ok:
    return Ok("done")


class Plain(Workflow[Order], unique=Unique("plain")):
    initial = plain
    transitions = {plain: {"done": Done}}


@task(cpu=True, tags=["nightly"], retry=QUICK, max_runtime=timedelta(seconds=2))
def count(ctx: TaskContext, day: date, *, until: int = 10, how: str = "") -> Sum:
    if how == "hang" and ctx.attempt == 1:
        sum(range(10**13))
    if how == "exit" and ctx.attempt == 1:
        os._exit(3)
    if how == "raise":
        raise Refused(f"no {day:%A}s")
    assert current_job() is ctx
    assert ctx.tags == ("nightly",)
    return Sum(day.year + until, os.getpid())


@task(cpu=True)
async def count_async(number: int) -> int:
    await asyncio.sleep(0)
    return number + current_job().attempt


WORKFLOWS = (Sums, One, Hang, HangForGood, Die, Plain, Sturdy, Pages)
TASKS = (count, count_async)
app = Pgflow(workflows=WORKFLOWS, tasks=TASKS)
NAME = "tests.worker.cpu_flows:app"
