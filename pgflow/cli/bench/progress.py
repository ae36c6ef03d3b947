"""Show on a terminal how far a benchmark is, in one line that is written over."""

import sys
from typing import TextIO

__all__ = ["Progress"]

WIDTH = 30
CLEAR = "\r\x1b[K"


class Progress:
    """A bar on stderr, and nothing at all where that is no terminal.

    progress.begin("chain, 2 of 3", 30_000)
    progress.advance(500)
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty()
        self._label = ""
        self._length = 0
        self._done = 0

    def begin(self, label: str, length: int) -> None:
        """Begin a new bar."""
        self._label, self._length, self._done = label, max(1, length), 0
        self._show()

    def advance(self, number: int) -> None:
        """Say that so many more are done."""
        self._done += number
        self._show()

    def end(self) -> None:
        """Take the bar away."""
        if self._is_shown:
            self._stream.write(CLEAR)
            self._stream.flush()

    def _show(self) -> None:
        if self._is_shown:
            share = min(1.0, self._done / self._length)
            bar = "#" * round(WIDTH * share)
            self._stream.write(f"{CLEAR}{self._label}  [{bar:-<{WIDTH}}] {share:4.0%}")
            self._stream.flush()
