"""Create private temporary directories, and remove those that killed processes left behind."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

PREFIX = "pgflow-"
LOCK = "lock"


class TempDir:
    """A new directory below the first suitable one of `parents`, with a lock file that marks it as in use.

    `longest` is the longest relative path in it, which must fit into `limit` bytes with its parents; `is_shared` makes
    the directory accessible to another account. Pass `lock` to child processes (`pass_fds`): the directory then counts
    as in use until the last of them has ended. The next TempDir with the same parent removes directories that are not
    in use.
    """

    def __init__(self, parents: Sequence[Path], longest: str, limit: int, *, is_shared: bool) -> None:
        example = f"{PREFIX}{'x' * 8}"
        short = [each for each in parents if len(os.fsencode(each / example / longest)) <= limit]
        suitable = [each for each in short if each.is_dir() and (not is_shared or _is_accessible(each))]
        parent = suitable[0] if suitable else parents[-1]
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self.path.chmod(0o711 if is_shared else 0o700)
        # Locked before it gets its name: a concurrent sweep must not find an unlocked file.
        self._lock: IO[str] = (self.path / "new").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "new").rename(self.path / LOCK)

    @property
    def lock(self) -> int:
        """The file descriptor of the lock."""
        return self._lock.fileno()

    def remove(self) -> None:
        """Remove the directory with its contents."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _is_accessible(directory: Path) -> bool:
    directory = directory.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (directory, *directory.parents))


def _sweep(parent: Path) -> None:
    for directory in parent.glob(f"{PREFIX}*"):
        try:
            if directory.lstat().st_uid == os.geteuid():
                with (directory / LOCK).open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
        except OSError:  # in use, being created, or removed concurrently
            continue
