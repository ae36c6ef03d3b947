"""A worker on a thread of this process, for tests that inspect it or whose steps call the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from pgflow import Pgflow
from pgflow.worker import Worker
from pgflow.worker.loop import run
from tests.worker.waiting import PATIENCE, until

BRISK = {
    "lease": timedelta(seconds=2),
    "poll": timedelta(seconds=0.2),
    "sweep": timedelta(seconds=0.3),
    "shutdown_timeout": timedelta(seconds=5),
}


class Inside:
    """Runs while the `with` lasts, then drains; afterwards nothing may be left in its hands.

    with Inside(app, {"default": 10}) as inside:
        inside.worker.stats.steps
    """

    worker: Worker

    def __init__(self, app: Pgflow, queues: dict[str, int] | None = None, **options: Any) -> None:
        self._make: Callable[[], Worker] = lambda: app.worker(queues, **{**BRISK, **options})
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="worker-inside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._begun.is_set() or self._error, "the worker's start")
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.check()

    def stop(self) -> None:
        """Ask it to stop, and wait until it has; raises what it ended with."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.worker.stop)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the worker does not end"
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Nothing is in its hands: each token that it took it has settled or given up, each slot is free again."""
        assert not self.worker.held_jobs.jobs
        slots = {
            name: (buffer.running, buffer.settling, buffer.waiting)
            for name, buffer in self.worker.held_jobs.buffers.items()
        }
        assert set(slots.values()) == {(0, 0, 0)}, f"running, settling and waiting by queue: {slots}"

    def call(self, what: Callable[[], Any]) -> None:
        """Do something in the worker's event loop."""
        self._loop.call_soon_threadsafe(what)

    def _live(self) -> None:
        try:
            run(self._run())
        except BaseException as error:
            self._error = error

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.worker = self._make()
        running = asyncio.create_task(self.worker.run())
        ready = asyncio.create_task(self.worker.is_ready.wait())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            self._begun.set()
        ready.cancel()
        await running
