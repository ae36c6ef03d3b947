"""Number the things of this machine that must not be there twice, and find what a dead owner has left."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pgflow.errors import PgflowError

__all__ = ["Slot"]

ROOT = Path("/run/pgflow")  # root's, like the things themselves, and empty after a restart of the machine
LAST = 250  # so that the number fits into an address

Clear = Callable[[int, Path], bool]


class Slot:
    """A number that nobody else on this machine has for a thing of the same `kind`, and a folder to go with it.

    It is held by a lock on the folder, so it ends with this process, whatever ends it. `clear(number, folder)` takes
    away all that an earlier owner may have left, and returns False when somebody still uses it; each new slot begins
    with doing that for all that are free. The folder is for root, passable for others.

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
        """Clear it up and give the number back. Does nothing the second time."""
        if self._lock >= 0:
            self._release(self.number, self.folder, self._lock)
            self._lock = -1

    def _release(self, number: int, folder: Path, lock: int) -> None:
        try:
            if self._clear(number, folder):
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # others have slots there
                    ROOT.rmdir()
        finally:
            os.close(lock)


def _numbers(kind: str) -> Iterator[int]:
    for folder in sorted(ROOT.glob(f"{kind}-*")):
        yield int(folder.name.rpartition("-")[2])


def _take(kind: str, number: int) -> tuple[Path, int] | None:
    """Lock a folder, making it; None when somebody else has it."""
    folder = ROOT / f"{kind}-{number}"
    try:
        for each in (ROOT, folder):
            with suppress(FileExistsError):
                each.mkdir()
                each.chmod(0o711)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # given back just now
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == folder.stat().st_ino:
            return folder, lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
