"""Read the instances of `pgflow start --from` from JSON Lines; the file is read twice, first to validate every line."""

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

from pgflow.cli.parameters import JSON_LIMIT, parse_business_value, parse_json
from pgflow.core.values.absent import ABSENT
from pgflow.errors import ConfigError, Invalid, InvalidInput

__all__ = ["CHUNK_SIZE", "Item", "chunks", "open_seekable", "progress_bar", "read_items"]

Item: TypeAlias = tuple[str, str | None]  # a business value, and its input as JSON text, None if absent

CHUNK_SIZE = 1000  # instances started in one statement
LINE_LIMIT = JSON_LIMIT  # bytes
EXAMPLE_HINT = 'Example of a line: {"value": "abc123", "input": {"count": 3}}.'


@contextmanager
def open_seekable(path: str) -> Iterator[IO[bytes]]:
    """Open a file, or stdin for "-", for reading it twice: a pipe is copied to a temporary file."""
    if path == "-":
        with _copy(sys.stdin.buffer) as copy:
            yield copy
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 -- closed below; the try covers only the opening
    except OSError as error:
        raise ConfigError(f"--from: cannot read {path}: {error.strerror}") from error
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
        else:
            with _copy(file) as copy:
                yield copy


def read_items(file: IO[bytes], name: str, write: Callable[[Any], str | None]) -> Iterator[Item]:
    """Yield the items of a JSON Lines file from its beginning, skipping empty lines.

    `write` validates an input and returns the JSON text to store. Raises `Invalid` with the number of the line.
    """
    file.seek(0)
    for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        try:
            if text := _decode(line, is_first=number == 1):
                yield _parse_item(text, write)
        except Invalid as error:
            raise type(error)(f"line {number} of {name}: {error}", hint=error.hint) from error


def chunks(items: Iterable[Item], size: int = CHUNK_SIZE) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def progress_bar(total: int) -> Any:
    """Return a context manager: a progress bar on stderr with `update(n)`, or None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    return click.progressbar(length=total, label="starting", file=sys.stderr)


def _parse_item(text: str, write: Callable[[Any], str | None]) -> Item:
    line = parse_json(text, "the line")
    if not isinstance(line, dict):
        raise InvalidInput("the line must be a JSON object", hint=EXAMPLE_HINT)
    unknown = sorted(line.keys() - {"value", "input"})
    if unknown:
        raise InvalidInput(f"unknown key {unknown[0]!r}", hint='The keys of a line are "value" and "input".')
    if "value" not in line:
        raise InvalidInput('missing key "value"', hint=EXAMPLE_HINT)
    return parse_business_value(line["value"]), write(line.get("input", ABSENT))


def _decode(line: bytes, *, is_first: bool) -> str:
    if len(line) > LINE_LIMIT:
        raise InvalidInput(f"the line is longer than {LINE_LIMIT:,} bytes")
    try:
        return line.decode("utf-8-sig" if is_first else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the line is not valid UTF-8 (byte {error.start})") from error


@contextmanager
def _copy(source: IO[bytes]) -> Iterator[IO[bytes]]:
    with TemporaryFile() as copy:
        shutil.copyfileobj(source, copy)
        yield copy
