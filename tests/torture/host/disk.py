"""A small file system that can be filled up."""

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from pgflow.embedded.installation import unprivileged
from pgflow.errors import PgflowError
from tests.torture.host.programs import find, run
from tests.torture.host.slot import Slot

__all__ = ["Disk"]

SOURCE = "pgflow"  # shown in the list of mounts
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
ROUNDS = 100  # attempts to shrink it while another process writes


class Disk:
    """A file system in memory (tmpfs) of at most `size` bytes, for a server's data.

    It uses as much memory as its contents. `fill()` shrinks it to its contents, so that the next page fails with ENOSPC
    until `free()`; deleting files makes room again. Only root can create one: see `why_not()`. `close()` removes it;
    after a kill of this process, the next one that creates a Disk does.

        with Disk(512 * 1024 * 1024) as disk:
            disk.fill()
    """

    def __init__(self, size: int) -> None:
        if reason := Disk.why_not():
            raise PgflowError(f"cannot create a disk: {reason}")
        self._size = size
        self._slot = Slot("disk", _clear)
        self.path = self._slot.folder / "disk"
        account = unprivileged()
        owner = f"uid={account.user},gid={account.group}" if account.user is not None else f"uid={os.geteuid()}"
        try:
            self.path.mkdir()
            options = f"size={size},mode=0700,nosuid,nodev,{owner}"
            run("mount", "-t", "tmpfs", "-o", options, SOURCE, str(self.path))
            # It must never be empty: a tmpfs of size 0 has no limit.
            (self.path / "page").write_bytes(bytes(PAGE))
        except BaseException:
            self._slot.release()
            raise

    @staticmethod
    def why_not() -> str | None:
        """Return why this machine cannot have one; None when it can."""
        return _obstacle() or _refusal()

    def fill(self) -> None:
        """Leave no free space."""
        for _ in range(ROUNDS):
            status = os.statvfs(self.path)
            if not status.f_bfree:
                return
            with suppress(PgflowError):  # another process writes, and it cannot be smaller than its contents
                self._resize((status.f_blocks - status.f_bfree) * status.f_frsize)
        raise PgflowError(f"the disk at {self.path} could not be filled")

    def free(self) -> None:
        """Restore its size."""
        self._resize(self._size)

    def close(self) -> None:
        """Remove it with its contents. Raises `PgflowError` while a process uses it."""
        _unmount(self.path)
        self._slot.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _resize(self, size: int) -> None:
        run("mount", "-o", f"remount,size={size}", str(self.path))


def _clear(number: int, folder: Path) -> bool:
    """Remove the file system in a slot's folder; False while a process uses it."""
    try:
        _unmount(folder / "disk")
    except PgflowError:
        return False
    return True


def _unmount(path: Path) -> None:
    while os.path.ismount(path):
        run("umount", str(path))


def _obstacle() -> str | None:
    if sys.platform != "linux":
        return "file systems in memory are mounted on Linux only"
    if os.geteuid() != 0:
        return "only root can mount a file system"
    missing = [program for program in ("mount", "umount") if find(program) is None]
    return f"the program {missing[0]} is not installed" if missing else None


@cache
def _refusal() -> str | None:
    """Return why the kernel refuses it, by trying."""
    slot = Slot("disk", _clear)
    try:
        (slot.folder / "disk").mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={MIB}", SOURCE, str(slot.folder / "disk"))
    except (OSError, PgflowError) as error:
        return str(error)
    finally:
        slot.release()
    return None
