"""A worker that drains at SIGHUP and runs again, on the same object and in the same process."""

from __future__ import annotations

import asyncio
import signal

from pgflow.worker import Worker

__all__ = ["Rerun"]


class Rerun(Worker):
    """Runs until `stop` is called; SIGHUP only ends the run that is under way, and another one follows."""

    _is_wanted = False

    async def run(self) -> None:
        """Run, once more after each SIGHUP."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGHUP, lambda number, frame: loop.call_soon_threadsafe(self._run_again))
        while True:
            self._is_wanted = False
            await super().run()
            if not self._is_wanted:
                return

    def stop(self) -> None:
        """End for good."""
        self._is_wanted = False
        super().stop()

    def _run_again(self) -> None:
        if not self._stopping.is_set():  # it may be ending for good
            super().stop()
            self._is_wanted = True
