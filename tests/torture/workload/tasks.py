"""The tasks of the workload. Each execution is recorded, and returns its nonce, as the steps do."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

from pgflow import Ended, Retry, TaskContext, UniqueTask, task
from tests.torture.trial.journal import Journal
from tests.torture.workload.steps import ENTER, QUICKLY, folder

__all__ = ["TASKS", "book_job", "jot", "noted", "occupy", "refuse_job", "toil"]


@cache
def journal() -> Journal:
    return Journal(folder() / "executions.jsonl")


@contextmanager
def recorded(ctx: TaskContext) -> Iterator[str]:
    """Record an execution of a task; yields its nonce."""
    nonce = secrets.token_hex(8)
    about = {"job": ctx.id, "task": ctx.task, "attempt": ctx.attempt, "nonce": nonce, "pid": os.getpid()}
    journal().write(e="begin", t=time.monotonic_ns(), **about)
    try:
        yield nonce
    except BaseException as error:
        journal().write(e="broken", t=time.monotonic_ns(), why=type(error).__name__, **about)
        raise
    journal().write(e="end", t=time.monotonic_ns(), **about)


@task(retry=QUICKLY)
def noted(ctx: TaskContext, end: Ended) -> str:
    """The hook of everything that has hooks."""
    with recorded(ctx) as nonce:
        assert end.status in ("completed", "failed", "cancelled")
    return nonce


@task(retry=QUICKLY)
async def jot(ctx: TaskContext, token: str, pause: float = 0.0) -> str:
    """Async, without hooks."""
    with recorded(ctx) as nonce:
        await asyncio.sleep(pause)
    return nonce


@task(retry=QUICKLY, on_success=noted, on_failure=noted, on_cancel=noted)
def toil(ctx: TaskContext, token: str, pause: float = 0.0, errors: int = 0) -> str:
    """Sync, in a thread, with hooks; its first `errors` attempts fail."""
    with recorded(ctx) as nonce:
        time.sleep(pause)
        if ctx.attempt <= errors:
            raise ConnectionError("the service does not answer")
    return nonce


@task(retry=QUICKLY, transactional=True, on_success=noted)
def book_job(ctx: TaskContext, token: str, pause: float = 0.0) -> str:
    """Writes a row in the transaction that records its end: a negative id is that of a job."""
    with recorded(ctx) as nonce:
        ctx.conn.execute(ENTER, [-ctx.id, ctx.task, nonce])
        time.sleep(pause)
    return nonce


@task(retry=Retry(max_attempts=1), on_success=noted, on_failure=noted)
def refuse_job(ctx: TaskContext, token: str) -> str:
    """Fails until it is fixed."""
    with recorded(ctx) as nonce:
        if not (folder() / "fixed" / token).exists():
            raise ValueError("not fixed yet")
    return nonce


@task(retry=Retry(max_attempts=8, base=timedelta(milliseconds=50)), unique=UniqueTask(["place"]), on_success=noted)
async def occupy(ctx: TaskContext, place: str, token: str, pause: float = 0.0) -> str:
    """Only one execution for a place may be unfinished."""
    with recorded(ctx) as nonce:
        await asyncio.sleep(pause)
    return nonce


TASKS = (noted, jot, toil, book_job, refuse_job, occupy)
