"""Run steps on the event loop and pass on their outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

from pgflow.core.definition.results import Async, Snooze
from pgflow.core.definition.step import Parking
from pgflow.core.definition.task_context import TaskContext
from pgflow.core.engine import attempt
from pgflow.core.engine.attempt import AttemptError, EncodedResult, attempt_error
from pgflow.core.values.codec import Location, roundtrip
from pgflow.core.values.sanitize import sanitize_line
from pgflow.local.control import LocalControl
from pgflow.local.live import LiveInstance, LocalJob
from pgflow.local.lock import DeferringLock
from pgflow.local.loop import Loop
from pgflow.logs import Logger
from pgflow.payloads.policy import PayloadPolicy

__all__ = ["Outcome", "Runner"]

log = Logger("pgflow.local")

Outcome: TypeAlias = EncodedResult | AttemptError | Snooze | Parking


class Runner:
    """Runs steps. `ended(live, job, outcome, duration)` is called with the lock held, unless the job was dropped.

    `saved(live)` is called with the lock held, too, when a step has stored a checkpoint.
    """

    def __init__(
        self,
        loop: Loop,
        lock: DeferringLock,
        ended: Callable[[LiveInstance, LocalJob, Outcome, timedelta], None],
        saved: Callable[[LiveInstance], None],
        policy: PayloadPolicy,
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._ended = ended
        self._saved = saved
        self._policy = policy
        self._tasks: dict[LocalJob, asyncio.Task[None]] = {}

    def begin(self, live: LiveInstance, job: LocalJob) -> None:
        """Start to run a step. Called on the loop, with the lock held."""
        self._tasks[job] = self._loop.task(self._run(live, job))

    def interrupt(self, job: LocalJob) -> None:
        """Cancel a step, if it is async and runs; its outcome is dropped. Called with the lock held."""
        if job.control is not None:
            job.control.is_cancelled = True
        if (task := self._tasks.pop(job, None)) is not None:
            self._loop.soon(task.cancel)

    async def _run(self, live: LiveInstance, job: LocalJob) -> None:
        began = time.perf_counter()
        node = live.graph.nodes[job.step]
        seconds = None if node.step.max_runtime is None else node.step.max_runtime.total_seconds()
        limit = asyncio.timeout(seconds)
        outcome: Outcome
        place = Location(live.graph.name, live.id, "checkpoint", job.step)
        saved = partial(self._saved, live)
        control = job.control = LocalControl(job, place, self._lock, saved, self._policy.codec)
        try:
            step = node.step.with_config(job.config)
            ctx = self._context(live, job, control)
            as_job = partial(TaskContext.of_step, id=job.id, queue=node.queue, max_attempts=node.retry.max_attempts)
            async with limit:
                result = await self._loop.call(step, ctx, node.retry, partial(as_job, ctx))
            policy, number = self._policy, job.attempt
            result_of_step = attempt.read(
                live.graph,
                job.step,
                result,
                lambda: self._context(live, job),
                number,
                reveal=policy.reveal,
                limit=policy.limit,
            )
            if isinstance(result_of_step, EncodedResult) and result_of_step.text is not None:
                roundtrip(policy.codec, result_of_step.text, Location(live.graph.name, live.id, "output", job.step))
            outcome = attempt.parking_of(live.graph, step) if isinstance(result_of_step, Async) else result_of_step
        except BaseException as error:  # a step must not end the program, even by sys.exit()
            if limit.expired():
                control.is_cancelled = True
                outcome = attempt.overdue(live.graph, job.step, job.attempt)
            else:
                outcome = attempt_error(error, node.retry, job.attempt)
            log.debug("step %s of %s failed: %s", job.step, live.id, sanitize_line(outcome.reason))
        with self._lock:
            self._tasks.pop(job, None)
            if job.control is control:
                job.control = None
            if live.holds(job):  # not after `interrupt`
                self._ended(live, job, outcome, timedelta(seconds=time.perf_counter() - began))

    def _context(self, live: LiveInstance, job: LocalJob, control: LocalControl | None = None) -> Any:
        with self._lock:
            return live.context(job, control)
