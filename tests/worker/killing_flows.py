"""Workflows whose steps kill their worker process, and innocent ones that run beside them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from pathlib import Path

from pydantic import BaseModel

from pgflow import Context, Done, Ended, Ok, Pgflow, Retry, Unique, Workflow, step, task

ONCE = Retry(max_attempts=1)
LONG_ENOUGH = 0.3  # seconds, for whatever else runs there to have begun and not to have ended


class Deed(BaseModel):
    """How to kill the process, and a file that gets a line with each run of a step."""

    how: str = ""
    log: str


def note(ctx: Context[Deed]) -> None:
    with Path(ctx.initial.log).open("a") as log:
        log.write(f"{ctx.id} {ctx.attempt} {os.getpid()}\n")


def kill(how: str) -> None:
    """Not to be survived by any process."""
    match how:
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out


@step(retry=ONCE)
def strike(ctx: Context[Deed]) -> Ok:
    note(ctx)
    time.sleep(LONG_ENOUGH / 2)
    kill(ctx.initial.how)
    return Ok("done")


@step(retry=ONCE)
async def strike_async(ctx: Context[Deed]) -> Ok:
    note(ctx)
    await asyncio.sleep(LONG_ENOUGH / 2)
    kill(ctx.initial.how)
    return Ok("done")


@step(retry=ONCE)
def wait_sync(ctx: Context[Deed]) -> Ok:
    note(ctx)
    time.sleep(LONG_ENOUGH)
    return Ok("done")


@step(retry=ONCE)
async def wait_async(ctx: Context[Deed]) -> Ok:
    note(ctx)
    await asyncio.sleep(LONG_ENOUGH)
    return Ok("done")


@task
def mourn(end: Ended) -> None:
    """The hook of what kills its worker."""


@task(retry=ONCE, on_failure=mourn)
def strike_alone(how: str) -> None:
    """A task that kills its worker."""
    time.sleep(LONG_ENOUGH / 2)
    kill(how)


class Poison(Workflow[Deed], unique=Unique("poison"), on_failure=mourn):
    """A sync step that kills its worker."""

    initial = strike
    transitions = {strike: {"done": Done}}


class PoisonAsync(Workflow[Deed], unique=Unique("poison")):
    """An async step that kills its worker."""

    initial = strike_async
    transitions = {strike_async: {"done": Done}}


class Innocent(Workflow[Deed], unique=Unique("innocent")):
    """Two steps that do no harm and have one attempt each."""

    initial = wait_sync
    transitions = {wait_sync: {"done": wait_async}, wait_async: {"done": Done}}


class Short(Workflow[Deed], unique=Unique("short")):
    """One step that does no harm."""

    initial = wait_sync
    transitions = {wait_sync: {"done": Done}}


WORKFLOWS = (Poison, PoisonAsync, Innocent, Short)
TASKS = (mourn, strike_alone)
app = Pgflow(workflows=WORKFLOWS, tasks=TASKS)
