"""Workflows for a real worker process whose steps fork: the child calls, and then ends in one of several ways."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step

ONCE = Retry(max_attempts=1)
CHILD_SECONDS = 60.0  # within which a child has to end


class Plan(BaseModel):
    """How the child leaves the step that forked it."""

    leave: str = "return"


@step(retry=ONCE)
def plain(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"pid": os.getpid()})


class Child(Workflow[dict[str, Any]], unique=Unique("child")):
    """What a child starts."""

    initial = plain
    transitions = {plain: {"done": Done}}


def call(name: str) -> int:
    """What a child does: a few calls, each of which must get its own answer."""
    for number in range(3):
        value = f"{name}-{number}"
        started = Child.start(value, {})
        assert (started.id, Child.get(value).run) == (f"child::{value}", started.run)
    return os.getpid()


@contextmanager
def child(ctx: Context[Plan]) -> Iterator[bool]:
    """Fork; gives whether this is the child. The parent waits for its end, and notes its exit code."""
    pid = os.fork()
    if not pid:
        yield True
        return
    deadline = time.monotonic() + CHILD_SECONDS
    code = None
    while code is None and time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.0 if ended else 0.01)
    if code is None:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    CODES[ctx.run] = code
    yield False


CODES: dict[int, int | None] = {}


def leave(how: str) -> Ok:
    match how:
        case "exit":
            sys.exit(7)
        case "os._exit":
            os._exit(7)
        case "error":
            raise ValueError("in the child")
    return Ok("done", {"code": "the child's result"})


@step(retry=ONCE)
def fork(ctx: Context[Plan]) -> Ok:
    with child(ctx) as is_child:
        if is_child:
            call(ctx.value)
            return leave(ctx.initial.leave)
    return Ok("done", {"code": CODES[ctx.run]})


@step(retry=ONCE)
async def afork(ctx: Context[Plan]) -> Ok:
    with child(ctx) as is_child:
        if is_child:
            call(ctx.value)
            return leave(ctx.initial.leave)
    return Ok("done", {"code": CODES[ctx.run]})


@step(retry=ONCE, transactional=True)
def tfork(ctx: Context[Plan]) -> Ok:
    """The child inherits a connection that is in a transaction."""
    ctx.conn.execute("create temporary table mark on commit drop as select 1 as number")
    with child(ctx) as is_child:
        if is_child:
            call(ctx.value)
            ctx.conn.close()  # on its copy of the connection's object
            return leave(ctx.initial.leave)
    (number,) = ctx.conn.execute("select number from mark").fetchone()
    return Ok("done", {"code": CODES[ctx.run], "number": number})


@step(retry=ONCE, transactional=True)
async def atfork(ctx: Context[Plan]) -> Ok:
    """`tfork`, async."""
    await ctx.conn.execute("create temporary table mark on commit drop as select 1 as number")
    with child(ctx) as is_child:
        if is_child:
            call(ctx.value)
            await ctx.conn.close()
            return leave(ctx.initial.leave)
    (number,) = await (await ctx.conn.execute("select number from mark")).fetchone()
    return Ok("done", {"code": CODES[ctx.run], "number": number})


@step(retry=ONCE)
async def fork_in_a_task(ctx: Context[Plan]) -> Ok:
    """The step does not await the task, so only the event loop meets a SystemExit in it."""
    is_over = asyncio.Event()

    async def work() -> None:
        with child(ctx) as is_child:
            if is_child:
                leave(ctx.initial.leave)
        is_over.set()

    task = asyncio.create_task(work())
    await is_over.wait()
    await task
    return Ok("done", {"code": CODES[ctx.run]})


@step(retry=ONCE)
def leave_behind(ctx: Context[dict[str, Any]]) -> Ok:
    """The child lives on, without an end."""
    pid = os.fork()
    if not pid:
        signal.pause()
    path = Path(ctx.initial["pid"])
    path.with_suffix(".new").write_text(str(pid))
    path.with_suffix(".new").rename(path)
    return Ok("done")


@step(retry=ONCE)
def pool(ctx: Context[Plan]) -> Ok:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as processes:
        pids = list(processes.map(call, [f"{ctx.value}-{number}" for number in range(4)], timeout=CHILD_SECONDS))
    return Ok("done", {"is_other": os.getpid() not in pids})


class Sync(Workflow[Plan], unique=Unique("sync")):
    initial = fork
    transitions = {fork: {"done": Done}}


class Async(Workflow[Plan], unique=Unique("async")):
    initial = afork
    transitions = {afork: {"done": Done}}


class Transactional(Workflow[Plan], unique=Unique("transactional")):
    initial = tfork
    transitions = {tfork: {"done": Done}}


class ATransactional(Workflow[Plan], unique=Unique("atransactional")):
    initial = atfork
    transitions = {atfork: {"done": Done}}


class Task(Workflow[Plan], unique=Unique("task")):
    initial = fork_in_a_task
    transitions = {fork_in_a_task: {"done": Done}}


class Pooled(Workflow[Plan], unique=Unique("pooled")):
    initial = pool
    transitions = {pool: {"done": Done}}


class Lasting(Workflow[dict[str, Any]], unique=Unique("lasting")):
    initial = leave_behind
    transitions = {leave_behind: {"done": Done}}


WORKFLOWS = (Child, Sync, Async, Transactional, ATransactional, Task, Pooled, Lasting)
app = Pgflow(workflows=WORKFLOWS)
