"""`pgflow worker --max-jobs N --max-lifetime D`: end a worker gracefully, against slow leaks."""

import asyncio
from datetime import timedelta

from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.worker import Worker

__all__ = ["Recycling"]

log = Logger("pgflow.worker")

POLL_SECONDS = 0.1
EARLIEST = 0.9  # of the lifetime: workers that were started together do not end together


class Recycling:
    """Stops a worker after `max_jobs` steps and tasks, or after `max_lifetime`; None for never.

    What the worker holds is finished, within its shutdown timeout, so it may run some jobs more.
    """

    def __init__(self, max_jobs: int | None, max_lifetime: timedelta | None) -> None:
        self._max_jobs = max_jobs
        self._seconds = None if max_lifetime is None else max_lifetime.total_seconds() * uniform(EARLIEST, 1)

    async def watch(self, worker: Worker) -> None:
        """Wait until it is time, and stop the worker; wait forever without limits."""
        reasons = [asyncio.ensure_future(wait) for wait in (self._jobs(worker), self._lifetime())]
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in reasons:
                each.cancel()
        log.info("%s: shutting down gracefully", done.pop().result())
        worker.stop()

    async def _jobs(self, worker: Worker) -> str:
        if self._max_jobs is None:
            return await asyncio.Future()
        while (ran := worker.stats.steps + worker.stats.tasks) < self._max_jobs:  # noqa: ASYNC110 -- no event has it
            await asyncio.sleep(POLL_SECONDS)
        return f"ran {ran} jobs (--max-jobs {self._max_jobs})"

    async def _lifetime(self) -> str:
        if self._seconds is None:
            return await asyncio.Future()
        await asyncio.sleep(self._seconds)
        return f"ran for {self._seconds:.0f} s (--max-lifetime)"
