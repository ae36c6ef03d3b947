"""Print a command's results: aligned columns for people, one JSON document for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from pgflow.cli.error_reporting import GlobalOptions

__all__ = ["DOCUMENT_VERSION", "document", "format_time", "print_document", "print_notice", "printable", "table"]

DOCUMENT_VERSION = 1  # incremented when a field is removed or changes its meaning, not when one is added


def document(content: Mapping[str, Any]) -> str:
    """Return one JSON document, with `schema_version` first; times are ISO 8601 in UTC, durations seconds.

    With --jsonl, a document that is one list becomes a line for each of its elements, and any other one line.

        print_document({"instances": [...]})
    """
    context = click.get_current_context(silent=True)
    if context is None or not context.ensure_object(GlobalOptions).json_lines:
        return _json({"schema_version": DOCUMENT_VERSION, **content}, indent=2)
    (first, *others) = content.values()
    if isinstance(first, list) and not others:
        return "\n".join(map(_json, first))
    return _json({"schema_version": DOCUMENT_VERSION, **content})


def print_document(content: Mapping[str, Any]) -> None:
    """Print a document on stdout; an empty list as lines is nothing."""
    if text := document(content):
        click.echo(text)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, default=_jsonable, ensure_ascii=False, indent=indent)


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
