"""Count and time steps in files, which the benchmark reads while they run, without involving the database.

Uses the standard library only: programs of other engines, in environments of their own, load this very file.
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOLDER", "Counts", "TraceEvent", "TraceReader", "TraceWriter", "count", "record"]

FOLDER = "PGFLOW_BENCH_MARKS"  # the environment variable that names the folder
COUNTS = struct.Struct("=qqq")  # the count; the first and the last, in nanoseconds of the monotonic clock
EVENT = struct.Struct("=qqq")


class Counts(NamedTuple):
    """How many steps were counted, and when the first and the last: monotonic nanoseconds, 0 for none."""

    steps: int
    first: int
    last: int


class TraceEvent(NamedTuple):
    """A recorded step: a key and a number that the caller chose, and the time in monotonic nanoseconds."""

    key: int
    number: int
    at: int


class TraceWriter:
    """The trace of one process, in two files of its own."""

    def __init__(self, folder: str) -> None:
        name = os.path.join(folder, str(os.getpid()))
        with open(f"{name}.counts", "w+b") as file:
            file.truncate(COUNTS.size)
            self._counts = mmap.mmap(file.fileno(), COUNTS.size)
        self._events = os.open(f"{name}.events", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._number = 0
        self._first = 0

    def count(self) -> None:
        """Count a step."""
        now = time.monotonic_ns()
        with self._lock:
            self._number += 1
            self._first = self._first or now
            COUNTS.pack_into(self._counts, 0, self._number, self._first, now)

    def record(self, key: int, number: int = 0) -> None:
        """Count a step and keep it as a `TraceEvent`."""
        os.write(self._events, EVENT.pack(key, number, time.monotonic_ns()))
        self.count()


OURS: list[TraceWriter] = []  # this process's writer, once it is open
OPENING = threading.Lock()


def count() -> None:
    """Count a step in this process's trace."""
    (OURS or _opened())[0].count()


def record(key: int, number: int = 0) -> None:
    """Record a step in this process's trace."""
    (OURS or _opened())[0].record(key, number)


def _opened() -> list[TraceWriter]:
    with OPENING:  # only one thread opens the files: opening them again would truncate what is mapped
        if not OURS:
            OURS.append(TraceWriter(os.environ[FOLDER]))
        return OURS


class TraceReader:
    """Reads the traces of all processes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counts: dict[str, mmap.mmap] = {}

    def read(self) -> Counts:
        """Return the counts of all processes so far."""
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".counts") and entry.name not in self._counts and entry.stat().st_size:
                with Path(entry).open("rb") as file:
                    self._counts[entry.name] = mmap.mmap(file.fileno(), COUNTS.size, access=mmap.ACCESS_READ)
        each = [COUNTS.unpack_from(counts, 0) for counts in self._counts.values()]
        counted = [Counts(*numbers) for numbers in each if numbers[0]]
        if not counted:
            return Counts(0, 0, 0)
        return Counts(sum(c.steps for c in counted), min(c.first for c in counted), max(c.last for c in counted))

    def events(self) -> list[TraceEvent]:
        """Return the recorded steps, in order of time."""
        found = [
            TraceEvent(*numbers)
            for path in self.folder.glob("*.events")
            for numbers in EVENT.iter_unpack(_whole(path.read_bytes()))
        ]
        return sorted(found, key=lambda event: event.at)


def _whole(written: bytes) -> bytes:
    """Drop an event that is only partly written."""
    return written[: len(written) // EVENT.size * EVENT.size]
