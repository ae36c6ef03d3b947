"""Worker processes, each restarted when it ends, as a service manager does."""

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
from tests.torture.workload import flows, steps

__all__ = ["Fleet", "WorkerSlot"]

RESTART_SECONDS = 0.2
POLL_SECONDS = 0.05
# Short, so that much happens in little time: a dead worker's steps run again within 2 + 1 + 0.3 s.
LEASE, SWEEP, POLL = 2.0, 1.0, 0.3
OPTIONS = ("--lease", str(LEASE), "--sweep", str(SWEEP), "--poll", str(POLL), "--shutdown-timeout", "3")


@dataclass
class WorkerSlot:
    """One worker of the fleet: how it is started, and its current process."""

    name: str
    dsn: str
    log: Path
    prefix: Sequence[str] = ()  # before the command, such as `ip netns exec`
    command: Sequence[str] = COMMAND
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exits: list[int] = field(default_factory=list)
    failpoints: str = ""  # for the next process
    is_wanted: bool = True
    begins_at: int = 0  # offset of this process in the log

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
    def log_text(self) -> str:
        """What this process has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self.begins_at)
            return log.read().decode(errors="replace")

    @property
    def is_ready(self) -> bool:
        """Whether this process claims jobs."""
        return self.pid is not None and self.runs > 0

    @property
    def runs(self) -> int:
        """How often this process became ready: a worker may run again after a drain."""
        return self.log_text.count("is ready: ")

    def until_ready(self, seconds: float) -> bool:
        """Wait until this worker claims jobs; returns False on a timeout."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.is_ready:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def is_stopped(self) -> bool:
        """Whether the process exists and is stopped."""
        if self.pid is None:
            return False
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
        except OSError:
            return False


class Fleet:
    """Keeps a worker running in each slot, as a context manager. At the end it terminates all, also stopped ones."""

    def __init__(
        self,
        folder: Path,
        slots: Sequence[WorkerSlot],
        *,
        app: str = f"{flows.__name__}:app",
        queues: Sequence[str] = ("default=8",),
    ) -> None:
        self.slots = slots
        self._folder = folder
        self._options = ("--app", app, *OPTIONS, *(part for queue in queues for part in ("--queue", queue)))
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
        """Terminate all workers, once."""
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._thread.join()
        for slot in self.slots:
            slot.send(signal.SIGCONT)
            slot.send(signal.SIGTERM)
        for slot in self.slots:
            if slot.process is not None:
                try:
                    slot.exits.append(slot.process.wait(8))
                except subprocess.TimeoutExpired:
                    slot.process.kill()
                    slot.exits.append(slot.process.wait())

    @property
    def starts(self) -> int:
        """How many processes have been started."""
        return sum(slot.starts for slot in self.slots)

    def restart(self, slot: WorkerSlot, failpoints: str = "") -> None:
        """Terminate a slot's worker gracefully; the next one has these failpoints."""
        with self._lock:
            slot.failpoints = failpoints
            slot.send(signal.SIGTERM)

    def _keep(self) -> None:
        while not self._is_closing.wait(POLL_SECONDS):
            for slot in self.slots:
                with self._lock:
                    if slot.is_wanted and slot.pid is None:
                        self._start(slot)

    def _start(self, slot: WorkerSlot) -> None:
        if slot.process is not None:
            slot.exits.append(slot.process.returncode)
            time.sleep(RESTART_SECONDS)
        armed, slot.failpoints = slot.failpoints, ""
        environment = {
            **os.environ,
            "PGFLOW_DSN": slot.dsn,
            steps.FOLDER: str(self._folder),
            VARIABLE: armed,
        }
        environment.pop(
            "PGFLOW_SCHEMA", None
        )  # with it the command would create another app than `flows.RestartableApp`
        log: IO[bytes]
        with slot.log.open("ab") as log:
            slot.begins_at = log.tell()
            slot.process = subprocess.Popen(
                [*slot.prefix, *slot.command, *self._options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        slot.starts += 1
