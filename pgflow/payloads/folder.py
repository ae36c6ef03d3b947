"""A payload store in a folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

from pgflow.errors import ConfigError, InvalidValue

__all__ = ["FolderStore"]

KEY = re.compile(r"[0-9a-z][0-9a-z_-]{2,127}")
TEMPORARY = ".tmp"


class FolderStore:
    """A payload store in a folder that all processes of an app share, such as a volume or a network file system.

    The folder must exist; the objects are files in subfolders. A file is written under a temporary name, flushed to the
    disk and renamed, so a reader sees a whole object or none. Files are readable by their owner alone.

    Raises `ConfigError` for a path that is not a folder.

        app = Pgflow(dsn, workflows=[Import], payload_store=FolderStore("/srv/shop/payloads"))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        if not self.path.is_dir():
            raise ConfigError(
                f"FolderStore({str(path)!r}): there is no such folder",
                hint="Create it first, so that a volume that is not mounted is noticed: mkdir -p.",
            )

    def __repr__(self) -> str:
        return f"FolderStore({str(self.path)!r})"

    def put(self, key: str, data: bytes) -> None:
        """Store an object durably. Raises `OSError`."""
        path = self._path(key)
        self._make_subfolder(path.parent)
        temporary = path.with_name(f"{key}.{token_hex(8)}{TEMPORARY}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync(path.parent)

    def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raises `KeyError` if there is none, and `OSError`."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. Raises `OSError`."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def list(self, older_than: timedelta) -> Iterator[str]:
        """Yield the keys of old objects. Temporary files of that age, which a crash has left, are deleted."""
        latest = time.time() - older_than.total_seconds()
        for folder in sorted(self.path.iterdir()):
            if len(folder.name) != 2 or not folder.is_dir():
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        is_old = entry.is_file(follow_symlinks=False) and entry.stat().st_mtime < latest
                    except FileNotFoundError:  # deleted by another process
                        continue
                    if is_old and entry.name.endswith(TEMPORARY):
                        Path(entry.path).unlink(missing_ok=True)
                    elif is_old and KEY.fullmatch(entry.name) and entry.name.startswith(folder.name):
                        yield entry.name

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise InvalidValue(
                f"{key!r} is not a key of a payload store: 3 to 128 characters of a-z, 0-9, - and _, not first - or _"
            )
        return self.path / key[:2] / key

    def _make_subfolder(self, folder: Path) -> None:
        """Make a subfolder durable before a file in it is; the store's own folder has to exist."""
        if not folder.is_dir():
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            _sync(self.path)


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
