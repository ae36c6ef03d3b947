"""Run steps on the loop, and hand over what they came to."""

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
from pgflow.local.lock import Lock
from pgflow.local.loop import Loop
from pgflow.local.run import Run, Token
from pgflow.logs import Logger

__all__ = ["Came", "Runner"]

log = Logger("pgflow.local")

Came: TypeAlias = EncodedResult | AttemptError | Snooze | Parking


class Runner:
    """`ended(run, token, came, took)` is called with the lock held, unless the token is no longer that of its step."""

    def __init__(
        self, loop: Loop, lock: Lock, ended: Callable[[Run, Token, Came, timedelta], None], codec: Codec | None = None
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._ended = ended
        self._codec = codec
        self._tasks: dict[Token, asyncio.Task[None]] = {}

    def begin(self, run: Run, token: Token) -> None:
        """Begin to run a step; to be called on the loop, with the lock held."""
        self._tasks[token] = self._loop.task(self._run(run, token))

    def interrupt(self, token: Token) -> None:
        """Interrupt a step, if it is async and runs; it comes to nothing. To be called with the lock held."""
        if (task := self._tasks.pop(token, None)) is not None:
            self._loop.soon(task.cancel)

    async def _run(self, run: Run, token: Token) -> None:
        began = time.perf_counter()
        node = run.graph.nodes[token.step]
        seconds = None if node.step.max_runtime is None else node.step.max_runtime.total_seconds()
        limit = asyncio.timeout(seconds)
        came: Came
        try:
            step = node.step.with_config(token.config)
            async with limit:
                result = await self._loop.call(step, self._context(run, token), node.retry)
            reveal = self._codec is not None
            what = attempt.read(run.graph, token.step, result, lambda: self._context(run, token), reveal=reveal)
            if isinstance(what, EncodedResult) and what.text is not None:
                through(self._codec, what.text, Location(run.graph.name, run.id, "output", token.step))
            came = attempt.waits(run.graph, step) if isinstance(what, Async) else what
        except BaseException as error:  # nothing that a step raises, sys.exit() included, may end the program
            came = attempt.overdue(run.graph, token.step) if limit.expired() else failing(error, node.retry)
            log.debug("step %s of %s failed: %s", token.step, run.id, sanitize_line(came.reason))
        with self._lock:
            self._tasks.pop(token, None)
            if run.holds(token):  # no longer, if the task was cancelled by `interrupt`
                self._ended(run, token, came, timedelta(seconds=time.perf_counter() - began))

    def _context(self, run: Run, token: Token) -> Any:
        with self._lock:
            return run.context(token)
