"""Allocate machine-wide unique numbers for mounts and networks, and clean up after owners that died."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pgflow.errors import PgflowError

__all__ = ["Slot"]

ROOT = Path("/run/pgflow")  # owned by root, and empty after a reboot
LAST = 250  # so that the number fits into an address

Clear = Callable[[int, Path], bool]


class Slot:
    """A number that is unique on this machine among resources of the same `kind`, with a folder for it.

    A lock on the folder holds it, so it is released when this process ends for any reason. `clear(number, folder)`
    removes what an earlier owner left, and returns False while a process still uses it; each new slot first clears all
    free ones. The folder belongs to root, and others may traverse it.

        slot = Slot("disk", clear)
        slot.number, slot.folder    # 1, /run/pgflow/disk-1
    """

    def __init__(self, kind: str, clear: Clear) -> None:
        self._clear = clear
        for number in _numbers(kind):
            if left := _take(kind, number):
                self._release(number, *left)
        for number in range(1, LAST + 1):
            if (taken := _take(kind, number)) and clear(number, taken[0]):
                self.number = number
                self.folder, self._lock = taken
                return
            if taken:
                os.close(taken[1])
        raise PgflowError(f"all {LAST} numbers for a {kind} are in use on this machine")

    def release(self) -> None:
        """Clear it and release the number. Does nothing the second time."""
        if self._lock >= 0:
            self._release(self.number, self.folder, self._lock)
            self._lock = -1

    def _release(self, number: int, folder: Path, lock: int) -> None:
        try:
            if self._clear(number, folder):
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # other slots are in use
                    ROOT.rmdir()
        finally:
            os.close(lock)


def _numbers(kind: str) -> Iterator[int]:
    for folder in sorted(ROOT.glob(f"{kind}-*")):
        yield int(folder.name.rpartition("-")[2])


def _take(kind: str, number: int) -> tuple[Path, int] | None:
    """Create and lock a folder; None when another process has it."""
    folder = ROOT / f"{kind}-{number}"
    try:
        for each in (ROOT, folder):
            with suppress(FileExistsError):
                each.mkdir()
                each.chmod(0o711)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # released just now
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == folder.stat().st_ino:
            return folder, lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
