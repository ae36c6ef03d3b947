"""The demo's worker processes: real ones, and none of them is left, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pgflow.cli.output import say
from pgflow.errors import PgflowError

__all__ = ["Processes"]

COUNT = 2
# Short times, so that the rescue can be watched.
OPTIONS = ("--queue", "default=20", "--lease", "2", "--sweep", "0.5", "--poll", "0.5")
READY_SECONDS = 20.0
LOG_TAIL = 2000  # characters


class Processes:
    """Two workers, for the length of a `with`. When it is left by an error, what they said is printed."""

    def __init__(self, dsn: str, logs: Path) -> None:
        # In the environment, not on the command line, where everybody on the machine could read a password.
        self._environment = {**os.environ, "PGFLOW_DSN": dsn, "PGFLOW_SCHEMA": "pgflow"}
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        start = "from pgflow.cli import main; main()"
        line = [sys.executable, "-c", start, "worker", "--app", "pgflow.cli.demo.flow:app", *OPTIONS]
        for number in range(1, COUNT + 1):
            with (self._logs / f"worker-{number}.log").open("wb") as log:
                self._running.append(subprocess.Popen(line, env=self._environment, stdout=log, stderr=log))
        return self

    def wait_until_ready(self) -> None:
        """Wait until all of them look for work, so that each has its share when it comes."""
        deadline = time.monotonic() + READY_SECONDS
        while sum("is ready" in path.read_text(errors="replace") for path in self._logs.glob("*.log")) < COUNT:
            self.check()
            if time.monotonic() > deadline:
                raise PgflowError(f"the demo's workers were not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def kill_one(self) -> int:
        """Kill one of them with SIGKILL and return its process id."""
        victim = self._running.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        return victim.pid

    def check(self) -> None:
        """Raise when one has ended by itself."""
        if any(process.poll() is not None for process in self._running):
            raise PgflowError("a worker of the demo has ended by itself", hint="What it said stands above.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if error is not None:
            for path in sorted(self._logs.glob("*.log")):
                say(f"{path.name}:\n{path.read_text(errors='replace')[-LOG_TAIL:]}")
