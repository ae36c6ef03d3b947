"""Worker processes of a command that brings its own workflows. None of them outlives the command."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pgflow.errors import PgflowError

__all__ = ["WorkerProcesses"]

READY_SECONDS = 20.0
STOP_SECONDS = 40.0  # more than a worker gives its steps
LOG_TAIL = 2000  # characters


class WorkerProcesses:
    """`count` processes of `pgflow worker` for an app, as a context manager.

    `options` are the worker's. When an error leaves the `with` block, the end of each worker's log is copied to stderr.
    Afterwards `printed` holds what each of them wrote to stdout.

        with WorkerProcesses(dsn, folder, app="pgflow.cli.demo.flow:app", count=2) as processes:
            processes.wait_until_ready()
    """

    def __init__(
        self,
        dsn: str,
        logs: Path,
        *,
        app: str,
        count: int,
        options: Sequence[str] = (),
        schema: str = "pgflow",
        environment: dict[str, str] | None = None,
    ) -> None:
        # In the environment: any user of the machine can read a password on the command line.
        connection = {"PGFLOW_DSN": dsn, "PGFLOW_SCHEMA": schema}
        self._environment = {**os.environ, **(environment or {}), **connection}
        self._logs = logs
        self._line = [sys.executable, "-c", "from pgflow.cli import main; main()", "worker", "--app", app, *options]
        self._count = count
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for number in range(1, self._count + 1):
            with self._path(number, "log").open("wb") as log, self._path(number, "out").open("wb") as out:
                self._running.append(subprocess.Popen(self._line, env=self._environment, stdout=out, stderr=log))
        return self

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self._running]

    @property
    def printed(self) -> list[str]:
        """What each has written to stdout so far."""
        return [self._path(number, "out").read_text(errors="replace") for number in range(1, self._count + 1)]

    def wait_until_ready(self) -> None:
        """Wait until all of them claim jobs, so that each gets its share."""
        deadline = time.monotonic() + READY_SECONDS
        while sum("is ready" in path.read_text(errors="replace") for path in self._all_logs()) < self._count:
            self.check()
            if time.monotonic() > deadline:
                raise PgflowError(f"the workers were not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def kill_one(self) -> int:
        """Kill one of them with SIGKILL and return its process id."""
        victim = self._running.pop(0)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        return victim.pid

    def check(self) -> None:
        """Raise `PgflowError` when one has ended on its own."""
        if any(process.poll() is not None for process in self._running):
            raise PgflowError("a worker ended unexpectedly", hint="The workers' logs are printed above.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_SECONDS if error is None else READY_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if error is not None:
            for path in self._all_logs():
                print(f"{path.name}:\n{path.read_text(errors='replace')[-LOG_TAIL:]}", file=sys.stderr)

    def _path(self, number: int, kind: str) -> Path:
        return self._logs / f"worker-{number}.{kind}"

    def _all_logs(self) -> list[Path]:
        return [self._path(number, "log") for number in range(1, self._count + 1)]
