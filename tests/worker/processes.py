"""Real `pgflow worker` processes, which a test may kill, pause and stop; none outlives the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pgflow.database.connect import Connection
from tests.torture import worker as torture
from tests.torture.workers.failpoints import VARIABLE
from tests.worker.waiting import PATIENCE, until

CHECKOUT = Path(__file__).parents[2]
RUN = "from pgflow.cli import main; main()"
BRISK = {"--lease": "2", "--poll": "0.2", "--sweep": "0.3"}


class Process:
    """One worker process; its pid is in pgflow.workers."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self._log = log
        self.pid = popen.pid

    @property
    def log(self) -> str:
        """Its log so far."""
        return self._log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait(PATIENCE)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end and return its exit code."""
        return self._popen.wait(patience)

    def terminate(self) -> int:
        """Ask it to end with SIGTERM and return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


class Processes:
    """Starts workers of an app among the tests, by default flows.py's; `reap` ends those that are left.

    They run the code in `tree`, with what `more` adds to the environment; their logs go into `folder`.
    """

    def __init__(
        self, dsn: str, folder: Path, conn: Connection, tree: Path = CHECKOUT, more: Mapping[str, str] | None = None
    ) -> None:
        self._dsn = dsn
        self._folder = folder
        self._conn = conn
        self._tree = tree
        self._more = more or {}
        self._all: list[Process] = []

    def start(
        self, *options: str, app: str = "tests.worker.flows", ready: bool = True, failpoints: str = ""
    ) -> Process:
        """Start a worker with a short lease, and wait until it has registered."""
        path = self._folder / f"worker-{len(self._all) + 1}.log"
        given = {name: value for name, value in BRISK.items() if name not in options}
        brisk = [word for pair in given.items() for word in pair]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
        with path.open("wb") as log:
            popen = subprocess.Popen(
                [
                    *(torture.COMMAND if failpoints else (sys.executable, "-c", RUN, "worker")),
                    "--app",
                    f"{app}:app",
                    *brisk,
                    *options,
                ],
                cwd=self._tree,
                env={
                    **kept,
                    "PYTHONPATH": str(self._tree),
                    "PGFLOW_DSN": self._dsn,
                    VARIABLE: failpoints,
                    **self._more,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = Process(popen, path)
        self._all.append(process)
        if ready:
            self.wait_for(process)
        return process

    def wait_for(self, *processes: Process) -> None:
        """Wait until workers have registered."""
        for process in processes:
            until(lambda process=process: self._is_ready(process), f"worker {process.pid}'s registration")  # type: ignore[misc]

    def _is_ready(self, process: Process) -> bool:
        assert process.code is None, process.log
        return bool(self._conn.execute("select from pgflow.workers where pid = %s", [process.pid]).fetchall())

    def reap(self) -> None:
        """Kill those that still run, also stopped ones, and print all logs."""
        for process in self._all:
            if process.code is None:
                process.kill()
            print(f"-- worker {process.pid} ended with {process.code}:\n{process.log[-4000:]}")
