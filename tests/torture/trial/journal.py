"""An append-only file of events, one JSON line each. Several processes may write to it, and a kill tears no line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Journal", "lines"]


class Journal:
    """Appends each line in one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, **event: Any) -> None:
        """Append a line."""
        os.write(self._file, (json.dumps(event, separators=(",", ":")) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the events of a file, if it exists; skip a last line torn by a crash of the machine."""
    if not path.exists():
        return
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
