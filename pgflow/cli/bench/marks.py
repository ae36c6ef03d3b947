"""Count and time what steps do, in files that the benchmark reads meanwhile; so that the database has no part in it.

Nothing but the standard library: the programs of other engines, in environments of their own, load this very file.
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["FOLDER", "Counted", "Mark", "Marks", "Tally", "count", "record"]

FOLDER = "PGFLOW_BENCH_MARKS"  # names the folder, to the processes that make marks
COUNTS = struct.Struct("=qqq")  # how many; the first and the last, in nanoseconds of the machine's monotonic clock
MARK = struct.Struct("=qqq")


class Counted(NamedTuple):
    """How many marks there are, and when the first and the last was made: monotonic nanoseconds, 0 for none."""

    marks: int
    first: int
    last: int


class Mark(NamedTuple):
    """One mark: what it is about, a number for people to give a meaning to, and when: monotonic nanoseconds."""

    about: int
    number: int
    at: int


class Marks:
    """Where one process makes its marks: in two files of its own."""

    def __init__(self, folder: str) -> None:
        name = os.path.join(folder, str(os.getpid()))
        with open(f"{name}.counts", "w+b") as file:
            file.truncate(COUNTS.size)
            self._counts = mmap.mmap(file.fileno(), COUNTS.size)
        self._marks = os.open(f"{name}.marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._number = 0
        self._first = 0

    def count(self) -> None:
        """Count one more."""
        now = time.monotonic_ns()
        with self._lock:
            self._number += 1
            self._first = self._first or now
            COUNTS.pack_into(self._counts, 0, self._number, self._first, now)

    def record(self, about: int, number: int = 0) -> None:
        """Count one more and keep it as a `Mark`."""
        os.write(self._marks, MARK.pack(about, number, time.monotonic_ns()))
        self.count()


OURS: list[Marks] = []  # this process's, once it has made one
OPENING = threading.Lock()


def count() -> None:
    """Count one more in this process's files."""
    (OURS or _opened())[0].count()


def record(about: int, number: int = 0) -> None:
    """Keep a mark in this process's files."""
    (OURS or _opened())[0].record(about, number)


def _opened() -> list[Marks]:
    with OPENING:  # of several threads one opens the files: to open them again would cut off what is mapped
        if not OURS:
            OURS.append(Marks(os.environ[FOLDER]))
        return OURS


class Tally:
    """Reads the marks of all processes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counts: dict[str, mmap.mmap] = {}

    def read(self) -> Counted:
        """Add up what was counted so far."""
        for entry in os.scandir(self.folder):
            if entry.name.endswith(".counts") and entry.name not in self._counts and entry.stat().st_size:
                with Path(entry).open("rb") as file:
                    self._counts[entry.name] = mmap.mmap(file.fileno(), COUNTS.size, access=mmap.ACCESS_READ)
        each = [COUNTS.unpack_from(counts, 0) for counts in self._counts.values()]
        made = [Counted(*numbers) for numbers in each if numbers[0]]
        if not made:
            return Counted(0, 0, 0)
        return Counted(sum(c.marks for c in made), min(c.first for c in made), max(c.last for c in made))

    def marks(self) -> list[Mark]:
        """Read the marks that were kept, in the order of their time."""
        found = [
            Mark(*numbers)
            for path in self.folder.glob("*.marks")
            for numbers in MARK.iter_unpack(_whole(path.read_bytes()))
        ]
        return sorted(found, key=lambda mark: mark.at)


def _whole(written: bytes) -> bytes:
    """What is written so far, without a mark that is only half there."""
    return written[: len(written) // MARK.size * MARK.size]
