"""A traceback in frames, those of libraries folded: the error is in the user's code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

__all__ = ["Folded", "Frame", "frames"]

FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<name>.+))?')
LIBRARY = re.compile(r"/(?:site-packages|dist-packages|lib/python3\.\d+)/|/pgflow/(?:worker|core|process)|<frozen ")


class Frame(NamedTuple):
    """One call: where, and its source line."""

    place: str
    source: str
    is_library: bool


class Folded(NamedTuple):
    """Calls that belong together: `is_library` ones are shown on request."""

    is_library: bool
    frames: tuple[Frame, ...]


def frames(text: str) -> tuple[Folded, ...]:
    """Return the calls of a traceback, outermost first; empty for a text that is none.

    A chained traceback is shown as one sequence of calls.
    """
    return tuple(
        Folded(is_library, tuple(group)) for is_library, group in groupby(_frames(text), lambda frame: frame.is_library)
    )


def _frames(text: str) -> Iterator[Frame]:
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if (found := FRAME.fullmatch(line)) is not None:
            below = (
                lines[number + 1].strip() if number + 1 < len(lines) and lines[number + 1].startswith("    ") else ""
            )
            name = f" in {found['name']}" if found["name"] else ""
            yield Frame(f"{found['file']}:{found['line']}{name}", below, LIBRARY.search(found["file"]) is not None)
