"""Make a private temporary folder, and remove those whose makers were killed before they could."""

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
    """A new folder in the first of `shelves` that suits, with a lock file that is held while anybody needs it.

    `reach` is the longest name that must fit below it within `limit` bytes; `passable` says that another account than
    ours must be able to get there. Hand `lock` on to child processes (`pass_fds`): the folder then counts as in use
    until the last of them has ended. A folder whose lock nobody holds is removed by the next TempDir on its data_root.
    """

    def __init__(self, shelves: Sequence[Path], *, reach: str, limit: int, passable: bool) -> None:
        example = f"{PREFIX}{'x' * 8}"
        fitting = [each for each in shelves if len(os.fsencode(each / example / reach)) <= limit]
        suiting = [each for each in fitting if each.is_dir() and (not passable or _is_passable(each))]
        data_root = suiting[0] if suiting else shelves[-1]
        _sweep(data_root)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=data_root))
        self.path.chmod(0o711 if passable else 0o700)
        # Locked before it gets its name, so that no sweep can come in between.
        self._lock: IO[str] = (self.path / "new").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "new").rename(self.path / LOCK)

    @property
    def lock(self) -> int:
        """The file descriptor that holds the lock."""
        return self._lock.fileno()

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _is_passable(folder: Path) -> bool:
    folder = folder.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


def _sweep(data_root: Path) -> None:
    for folder in data_root.glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_uid == os.geteuid():
                with (folder / LOCK).open("r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # still in use, half made, or gone meanwhile: none of our business
            continue
