"""The tasks that real workers run under limits. Each writes down when its body begins and ends, by the machine's clock.

The database runs on the same machine, so its clock is the same.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pgflow import Pgflow, TaskContext, task
from tests.torture.trial.journal import Journal
from tests.torture.workload.steps import folder

__all__ = ["BODIES", "QUEUES", "TASKS", "app"]

BODIES = "limited.jsonl"
QUEUES = ("shared", "keyed", "rated", "free")


@cache
def journal() -> Journal:
    return Journal(folder() / BODIES)


@contextmanager
def recorded(ctx: TaskContext) -> Iterator[None]:
    """Write down an execution. One that is killed has no end."""
    about = {"job": ctx.id, "nonce": secrets.token_hex(8), "pid": os.getpid()}
    journal().write(e="begin", t=time.time(), **about)
    yield
    journal().write(e="end", t=time.time(), **about)


@task(queue="shared")
async def narrow(ctx: TaskContext, pause: float) -> None:
    """Takes one place."""
    with recorded(ctx):
        await asyncio.sleep(pause)


@task(queue="shared", weight=3)
def broad(ctx: TaskContext, pause: float) -> None:
    """Takes three places, in a thread."""
    with recorded(ctx):
        time.sleep(pause)


@task(queue="keyed", partition_by="tenant")
async def keyed(ctx: TaskContext, pause: float, tenant: str) -> None:
    """Takes a place of its tenant."""
    with recorded(ctx):
        await asyncio.sleep(pause)


@task(queue="rated")
async def rated(ctx: TaskContext, pause: float) -> None:
    """Counts as one start."""
    with recorded(ctx):
        await asyncio.sleep(pause)


@task(queue="rated", weight=2)
async def costly(ctx: TaskContext, pause: float) -> None:
    """Counts as two starts."""
    with recorded(ctx):
        await asyncio.sleep(pause)


@task(queue="free")
async def free(ctx: TaskContext, pause: float) -> None:
    """Without limits."""
    with recorded(ctx):
        await asyncio.sleep(pause)


TASKS = (narrow, broad, keyed, rated, costly, free)
app = Pgflow(tasks=TASKS)
