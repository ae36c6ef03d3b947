"""A worker that drains on SIGHUP and runs again, as the same object in the same process."""

from __future__ import annotations

import asyncio
import signal

from pgflow.worker import Worker

__all__ = ["RestartableWorker"]


class RestartableWorker(Worker):
    """Runs until `stop` is called. SIGHUP drains the current run and starts another one."""

    _is_wanted = False

    async def run(self) -> None:
        """Run, and again after each SIGHUP."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(self._run_again))
        while True:
            self._is_wanted = False
            await super().run()
            if not self._is_wanted:
                return

    def stop(self) -> None:
        """Stop permanently."""
        self._is_wanted = False
        super().stop()

    def _run_again(self) -> None:
        if not self._stopping.is_set():  # unless it is stopping permanently
            super().stop()
            self._is_wanted = True
