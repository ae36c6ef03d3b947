"""Print a command's results: aligned columns for people, one JSON document for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = ["DOCUMENT_VERSION", "document", "format_time", "print_notice", "printable", "table"]

DOCUMENT_VERSION = 1  # incremented when a field is removed or changes its meaning, not when one is added


def document(content: Mapping[str, Any]) -> str:
    """Return one JSON document, with `schema_version` first; times are ISO 8601 in UTC, durations seconds.

    click.echo(document({"instances": [...]}))
    """
    return json.dumps({"schema_version": DOCUMENT_VERSION, **content}, default=_jsonable, ensure_ascii=False, indent=2)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the rows in aligned columns below their headers; None is shown as a dash.

    table(["ID", "STATUS"], [["orderid::abc", "running"]])
    """
    lines = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def printable(text: str) -> str:
    """Return text with control characters escaped: stored text is untrusted and must not control the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def print_notice(text: str) -> None:
    """Print a message for the user on stderr, so that stdout holds results only."""
    click.echo(text, err=True)


def format_time(at: datetime | None) -> str:
    """Return a time in UTC to the second, a dash for None."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case datetime():
            return format_time(value)
        case _:
            return printable(str(value))


def _jsonable(value: object) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case _:
            return str(value)
