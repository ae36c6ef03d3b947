"""A small file system of our own that can be full."""

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

SOURCE = "pgflow"  # what the list of mounts says
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
ROUNDS = 100  # that it takes at most to shrink below somebody who writes


class Disk:
    """A file system in memory of `size` bytes at most, for a server's data (`EmbeddedPostgres(data_root=disk.path)`).

    It takes as much memory as lies in it. `fill()` takes away what is free, and so no memory either: the file system
    shrinks to what it holds. From then on whatever needs another page fails with ENOSPC, until `free()`; what is
    deleted meanwhile may be used. Only root can have one: `why_not()` says so. It is gone with `close()`; when this
    process is killed, the next one that makes a Disk takes it away.

        with Disk(512 * 1024 * 1024) as disk:
            disk.fill()
    """

    def __init__(self, size: int) -> None:
        if reason := Disk.why_not():
            raise PgflowError(f"no disk can be made: {reason}")
        self._size = size
        self._slot = Slot("disk", _clear)
        self.path = self._slot.folder / "disk"
        account = unprivileged()
        owner = f"uid={account.user},gid={account.group}" if account.user is not None else f"uid={os.geteuid()}"
        try:
            self.path.mkdir()
            options = f"size={size},mode=0700,nosuid,nodev,{owner}"
            run("mount", "-t", "tmpfs", "-o", options, SOURCE, str(self.path))
            # It must never be empty: a file system of size 0 would be one without a limit.
            (self.path / "page").write_bytes(bytes(PAGE))
        except BaseException:
            self._slot.release()
            raise

    @staticmethod
    def why_not() -> str | None:
        """Return why no disk can be made here; None when it can."""
        return _obstacle() or _refusal()

    def fill(self) -> None:
        """Leave no byte free. Does nothing when none is."""
        for _ in range(ROUNDS):
            status = os.statvfs(self.path)
            if not status.f_bfree:
                return
            with suppress(PgflowError):  # somebody writes just now, and it cannot be smaller than what it holds
                self._resize((status.f_blocks - status.f_bfree) * status.f_frsize)
        raise PgflowError(f"the disk at {self.path} does not become full")

    def free(self) -> None:
        """Make it as large as it was. Does nothing when it is."""
        self._resize(self._size)

    def close(self) -> None:
        """Take it away with all that is in it. Raises `PgflowError` while somebody still uses it."""
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
    """Take away the file system in a slot's folder; False when somebody uses it."""
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
    return f"there is no program {missing[0]}" if missing else None


@cache
def _refusal() -> str | None:
    """Return what the kernel has against it, by trying."""
    slot = Slot("disk", _clear)
    try:
        (slot.folder / "disk").mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={MIB}", SOURCE, str(slot.folder / "disk"))
    except (OSError, PgflowError) as error:
        return str(error)
    finally:
        slot.release()
    return None
