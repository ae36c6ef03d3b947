"""Show the progress of a benchmark or a bulk operation on a terminal, in one line."""

import sys
from typing import TextIO

__all__ = ["ProgressBar"]

WIDTH = 30
CLEAR = "\r\x1b[K"


class ProgressBar:
    """A bar on stderr; shows nothing when that is not a terminal.

    progress.begin("chain, 2 of 3", 30_000)
    progress.advance(500)
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty()
        self._label = ""
        self._length = 0
        self._done = 0

    @property
    def is_shown(self) -> bool:
        """Whether it shows anything."""
        return self._is_shown

    def begin(self, label: str, length: int) -> None:
        """Start a new bar."""
        self._label, self._length, self._done = label, max(1, length), 0
        self._show()

    def advance(self, number: int) -> None:
        """Add to the number of finished units."""
        self._done += number
        self._show()

    def end(self) -> None:
        """Remove the bar."""
        if self._is_shown:
            self._stream.write(CLEAR)
            self._stream.flush()

    def _show(self) -> None:
        if self._is_shown:
            share = min(1.0, self._done / self._length)
            bar = "#" * round(WIDTH * share)
            self._stream.write(f"{CLEAR}{self._label}  [{bar:-<{WIDTH}}] {share:4.0%}")
            self._stream.flush()
