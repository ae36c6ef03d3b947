"""The workers: real `pgflow worker` processes, each started again when it has ended, as a service manager does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.torture.worker import COMMAND
from tests.torture.workers.failpoints import VARIABLE
from tests.torture.workload import flows

__all__ = ["Fleet", "WorkerSlot"]

RESTART_SECONDS = 0.2
GLANCE_SECONDS = 0.05
# Short, so that much happens in little time: a dead worker's steps run again after 2 + 1 + 0.3 s at the latest.
LEASE, SWEEP, POLL = 2.0, 1.0, 0.3
OPTIONS = ("--lease", str(LEASE), "--sweep", str(SWEEP), "--poll", str(POLL), "--shutdown-timeout", "3")


@dataclass
class WorkerSlot:
    """A place for one worker: how it is started, and the process that has it now."""

    name: str
    dsn: str
    log: Path
    prefix: Sequence[str] = ()  # goes before the command, such as into a namespace of the network
    command: Sequence[str] = COMMAND
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exits: list[int] = field(default_factory=list)
    failpoints: str = ""  # for the next process
    is_wanted: bool = True
    begins_at: int = 0  # where in the log the words of this process begin

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def send(self, number: signal.Signals) -> int | None:
        """Send the worker a signal; returns its process id, None when there is none."""
        pid = self.pid
        if pid is not None and self.process is not None:
            self.process.send_signal(number)
        return pid

    @property
    def said(self) -> str:
        """What this process has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self.begins_at)
            return log.read().decode(errors="replace")

    @property
    def is_ready(self) -> bool:
        """Whether this process takes work."""
        return self.pid is not None and self.runs > 0

    @property
    def runs(self) -> int:
        """How often this process has begun to take work: a worker may run again after a drain."""
        return self.said.count("is ready: ")

    def until_ready(self, seconds: float) -> bool:
        """Wait until this worker takes work; returns False when it has not come to that within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.is_ready:
                return True
            time.sleep(GLANCE_SECONDS)
        return False

    def is_stopped(self) -> bool:
        """Whether the process is there and stands still."""
        if self.pid is None:
            return False
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        except OSError:
            return False


class Fleet:
    """Keeps a worker in each berth, as a `with`. It ends them all, also those that stand still."""

    def __init__(self, folder: Path, berths: Sequence[WorkerSlot], *, concurrency: int = 8) -> None:
        self.berths = berths
        self._folder = folder
        self._options = (*OPTIONS, "--queue", f"default={concurrency}")
        self._lock = threading.RLock()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End them all. Does nothing when that has been done."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._thread.join()
        for berth in self.berths:
            berth.send(signal.SIGCONT)
            berth.send(signal.SIGTERM)
        for berth in self.berths:
            if berth.process is not None:
                try:
                    berth.exits.append(berth.process.wait(8))
                except subprocess.TimeoutExpired:
                    berth.process.kill()
                    berth.exits.append(berth.process.wait())

    @property
    def starts(self) -> int:
        """How many processes have been started."""
        return sum(berth.starts for berth in self.berths)

    def restart(self, berth: WorkerSlot, failpoints: str = "") -> None:
        """End a berth's worker in order; the next one has these failpoints."""
        with self._lock:
            berth.failpoints = failpoints
            berth.send(signal.SIGTERM)

    def _keep(self) -> None:
        while not self._is_closing.wait(GLANCE_SECONDS):
            for berth in self.berths:
                with self._lock:
                    if berth.is_wanted and berth.pid is None:
                        self._start(berth)

    def _start(self, berth: WorkerSlot) -> None:
        if berth.process is not None:
            berth.exits.append(berth.process.returncode)
            time.sleep(RESTART_SECONDS)
        armed, berth.failpoints = berth.failpoints, ""
        environment = {
            **os.environ,
            "PGFLOW_DSN": berth.dsn,
            flows.FOLDER: str(self._folder),
            VARIABLE: armed,
        }
        environment.pop("PGFLOW_SCHEMA", None)  # with it the command would make another app, without `flows.Tortured`
        log: IO[bytes]
        with berth.log.open("ab") as log:
            berth.begins_at = log.tell()
            berth.process = subprocess.Popen(
                [*berth.prefix, *berth.command, "--app", f"{flows.__name__}:app", *self._options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        berth.starts += 1
