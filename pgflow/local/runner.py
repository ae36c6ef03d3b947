"""LiveInstance steps on the loop, and hand over what they came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

from pgflow.core.definition.results import Async, Snooze
from pgflow.core.definition.step import Parking
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import AttemptError, EncodedResult, failing
from pgflow.core.values.codec import Codec, Location, through
from pgflow.core.values.sanitize import sanitize_line
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.lock import Lock
from pgflow.local.loop import Loop
from pgflow.logs import Logger

__all__ = ["Came", "Runner"]

log = Logger("pgflow.local")

Came: TypeAlias = EncodedResult | AttemptError | Snooze | Parking


class Runner:
    """`ended(live, job, came, took)` is called with the lock held, unless the job is no longer that of its step."""

    def __init__(
        self,
        loop: Loop,
        lock: Lock,
        ended: Callable[[LiveInstance, LocalJob, Came, timedelta], None],
        codec: Codec | None = None,
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._ended = ended
        self._codec = codec
        self._tasks: dict[LocalJob, asyncio.Task[None]] = {}

    def begin(self, live: LiveInstance, job: LocalJob) -> None:
        """Begin to live a step; to be called on the loop, with the lock held."""
        self._tasks[job] = self._loop.task(self._run(live, job))

    def interrupt(self, job: LocalJob) -> None:
        """Interrupt a step, if it is async and runs; it comes to nothing. To be called with the lock held."""
        if (task := self._tasks.pop(job, None)) is not None:
            self._loop.soon(task.cancel)

    async def _run(self, live: LiveInstance, job: LocalJob) -> None:
        began = time.perf_counter()
        node = live.graph.nodes[job.step]
        seconds = None if node.step.max_runtime is None else node.step.max_runtime.total_seconds()
        limit = asyncio.timeout(seconds)
        came: Came
        try:
            step = node.step.with_config(job.config)
            async with limit:
                result = await self._loop.call(step, self._context(live, job), node.retry)
            reveal = self._codec is not None
            what = attempt.read(live.graph, job.step, result, lambda: self._context(live, job), reveal=reveal)
            if isinstance(what, EncodedResult) and what.text is not None:
                through(self._codec, what.text, Location(live.graph.name, live.id, "output", job.step))
            came = attempt.waits(live.graph, step) if isinstance(what, Async) else what
        except BaseException as error:  # nothing that a step raises, sys.exit() included, may end the program
            came = attempt.overdue(live.graph, job.step) if limit.expired() else failing(error, node.retry)
            log.debug("step %s of %s failed: %s", job.step, live.id, sanitize_line(came.reason))
        with self._lock:
            self._tasks.pop(job, None)
            if live.holds(job):  # no longer, if the task was cancelled by `interrupt`
                self._ended(live, job, came, timedelta(seconds=time.perf_counter() - began))

    def _context(self, live: LiveInstance, job: LocalJob) -> Any:
        with self._lock:
            return live.context(job)
