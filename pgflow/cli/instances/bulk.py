"""Read many instances to start from JSON Lines: all lines are checked before the first of them is started."""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias

import click

from pgflow.cli.parameters import parse_business_value, parse_json
from pgflow.core.values.absent import ABSENT
from pgflow.core.values.payload import INPUT_LIMIT
from pgflow.errors import ConfigError, Invalid, InvalidInput

__all__ = ["CHUNK", "Item", "chunks", "items", "lines_of", "progress"]

Item: TypeAlias = tuple[str, str | None]  # a business value, and its input as JSON text, None when it was left out

CHUNK = 1000  # instances to start in one statement
LONGEST = 16 * INPUT_LIMIT  # bytes of a line


@contextmanager
def lines_of(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or standard input for "-", so that it can be read twice: what is no file on disk is copied first."""
    if path == "-":
        with _copy(sys.stdin.buffer) as copy:
            yield copy
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 -- closed below; only opening it is to be caught here
    except OSError as error:
        raise ConfigError(f"--from {path} cannot be read: {error.strerror}") from error
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
        else:
            with _copy(file) as copy:
                yield copy


def items(file: IO[bytes], name: str, write: Callable[[Any], str | None]) -> Iterator[Item]:
    """Yield the items in a file of JSON Lines, from its beginning; empty lines do not count.

    `write` makes the text to store out of an input, or refuses it. Raises `Invalid` with the number of the line.
    """
    file.seek(0)
    for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
        try:
            if text := _text(line, is_first=number == 1):
                yield _item(text, write)
        except Invalid as error:
            raise type(error)(f"line {number} of {name}: {error}", hint=error.hint) from error


def chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def progress(total: int) -> Any:
    """Return a context manager with `update(n)`, or None when nobody watches: a bar on stderr."""
    if not sys.stderr.isatty():
        return nullcontext()
    return click.progressbar(length=total, label="starting", file=sys.stderr)


def _item(text: str, write: Callable[[Any], str | None]) -> Item:
    line = parse_json(text, "it")
    if not isinstance(line, dict):
        raise InvalidInput("it is no object", hint='A line looks like {"value": "abc123", "input": {"count": 3}}.')
    unknown = sorted(line.keys() - {"value", "input"})
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is unknown here", hint='A line has a "value" and an "input".')
    if "value" not in line:
        raise InvalidInput('it has no "value"', hint='A line looks like {"value": "abc123", "input": {"count": 3}}.')
    return parse_business_value(line["value"]), write(line.get("input", ABSENT))


def _text(line: bytes, *, is_first: bool) -> str:
    if len(line) > LONGEST:
        raise InvalidInput(f"it is longer than {LONGEST:,} bytes")
    try:
        return line.decode("utf-8-sig" if is_first else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"it is no UTF-8 text (byte {error.start})") from error


@contextmanager
def _copy(source: IO[bytes]) -> Iterator[IO[bytes]]:
    with TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        yield copy
