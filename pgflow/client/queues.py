"""Queues at run time: `app.queues`."""

from __future__ import annotations

import asyncio
import builtins
import time
from datetime import timedelta
from typing import Any

from pgflow.client.backend import Backend
from pgflow.client.queue_commands import CountRunning, DrainQueue, ListQueues, PauseQueue, ResumeQueue, ScaleQueue
from pgflow.core.models.queue import MAX_WORKER_CONCURRENCY, Queue, check_limit_name, check_places
from pgflow.core.values.duration import is_duration
from pgflow.core.values.query_args import check_text, refuse
from pgflow.errors import QueueBusy

__all__ = ["Queues"]

POLL_SECONDS = 0.1  # between two looks whether a queue is drained


class Queues:
    """Pause, resume, scale and drain queues; running workers follow within a second.

    Each call concerns all workers, or with `node` those on one host (its `socket.gethostname()`). Every change is
    stored: workers that start later follow it, too. All raise `UnknownQueue` for a queue that has no settings, no job,
    no worker and no definition, and name the known ones.

        app.queues.pause("mail", by="deploy 1.4")
        app.queues.resume("mail")
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def pause(self, queue: str, *, node: str | None = None, by: str | None = None, conn: Any = None) -> None:
        """Claim and start no more jobs of a queue. Steps that run go on, and their results are recorded.

        `by` is shown to people, by default the role of the connection. A queue that is paused already stays as it is.
        """
        self._backend.execute(_pause(queue, node, by), conn)

    async def apause(self, queue: str, *, node: str | None = None, by: str | None = None, conn: Any = None) -> None:
        """`pause`, async."""
        await self._backend.aexecute(_pause(queue, node, by), conn)

    def resume(self, queue: str, *, node: str | None = None, conn: Any = None) -> bool:
        """End the pause of all nodes, or of one; returns whether there was one.

        A queue that is paused on a node stays paused there when the pause of all nodes ends.
        """
        return self._backend.execute(ResumeQueue(check_limit_name(queue), check_text("node", node)), conn)

    async def aresume(self, queue: str, *, node: str | None = None, conn: Any = None) -> bool:
        """`resume`, async."""
        return await self._backend.aexecute(ResumeQueue(check_limit_name(queue), check_text("node", node)), conn)

    def scale(self, queue: str, worker_concurrency: int | None, *, node: str | None = None, conn: Any = None) -> None:
        """Set how many jobs of a queue each worker runs at once, 1 to 10,000; None: as many as it was started with.

        A lower number takes effect as running jobs end. How many run on all workers together is a limit:
        `app.limits.set(queue, concurrency=…)`. Raises `InvalidValue`.

            app.queues.scale("mail", 20)
            app.queues.scale("mail", 2, node="small-host")
        """
        self._backend.execute(_scale(queue, worker_concurrency, node), conn)

    async def ascale(
        self, queue: str, worker_concurrency: int | None, *, node: str | None = None, conn: Any = None
    ) -> None:
        """`scale`, async."""
        await self._backend.aexecute(_scale(queue, worker_concurrency, node), conn)

    def drain(
        self, queue: str, *, node: str | None = None, timeout: timedelta | None = None, by: str | None = None
    ) -> None:
        """Pause a queue and wait until none of its jobs runs, for `timeout` at most; the queue stays paused.

        What is queued is kept: `resume` lets it run. Raises `QueueBusy` when jobs still run after the timeout.

            app.queues.drain("mail", node="host-7", timeout=timedelta(minutes=5))    # before maintenance of host-7
        """
        deadline = _deadline(timeout)
        running = self._backend.execute(_drain(queue, node, by))
        while running:
            time.sleep(_wait(queue, running, deadline, timeout))
            running = self._backend.execute(CountRunning(queue, node))

    async def adrain(
        self,
        queue: str,
        *,
        node: str | None = None,
        timeout: timedelta | None = None,  # noqa: ASYNC109 -- the database's work is bounded, not this call's
        by: str | None = None,
    ) -> None:
        """`drain`, async."""
        deadline = _deadline(timeout)
        running = await self._backend.aexecute(_drain(queue, node, by))
        while running:
            await asyncio.sleep(_wait(queue, running, deadline, timeout))
            running = await self._backend.aexecute(CountRunning(queue, node))

    def list(self, *, conn: Any = None) -> builtins.list[Queue]:
        """Read the queues in use, with pauses, limits and counts."""
        return self._backend.execute(ListQueues(), conn)

    async def alist(self, *, conn: Any = None) -> builtins.list[Queue]:
        """`list`, async."""
        return await self._backend.aexecute(ListQueues(), conn)


def _pause(queue: str, node: str | None, by: str | None) -> PauseQueue:
    return PauseQueue(check_limit_name(queue), check_text("node", node), check_text("by", by))


def _drain(queue: str, node: str | None, by: str | None) -> DrainQueue:
    return DrainQueue(check_limit_name(queue), check_text("node", node), check_text("by", by))


def _scale(queue: str, worker_concurrency: int | None, node: str | None) -> ScaleQueue:
    count = check_places("worker_concurrency", worker_concurrency, most=MAX_WORKER_CONCURRENCY)
    return ScaleQueue(check_limit_name(queue), count, check_text("node", node))


def _deadline(timeout: timedelta | None) -> float | None:
    if timeout is not None and not is_duration(timeout):
        refuse("timeout", timeout, "it must be a positive timedelta")
    return None if timeout is None else time.monotonic() + timeout.total_seconds()


def _wait(queue: str, running: int, deadline: float | None, timeout: timedelta | None) -> float:
    """Return the seconds until the next look. Raises `QueueBusy` after the deadline."""
    left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
    if left <= 0:
        jobs = "1 job still runs" if running == 1 else f"{running} jobs still run"
        raise QueueBusy(
            f"queue {queue}: {jobs} after {timeout}; the queue is paused",
            hint="Wait for longer, or resume it: pgflow queue resume " + queue,
        )
    return min(POLL_SECONDS, left)
