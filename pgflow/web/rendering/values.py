"""JSON values as they may be shown: hidden keys, encrypted values, values elsewhere, and values that are too large."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Literal

from markupsafe import Markup, escape
from pydantic import BaseModel

from pgflow.core.values.codec import is_encrypted
from pgflow.core.values.payload import ENCRYPTED_MARKER, REFERENCE_MARKER, decode
from pgflow.errors import InvalidPayload

__all__ = ["HIDDEN", "SHOWN_BYTES", "Value", "json_view", "line", "value_of"]

SHOWN_BYTES = 65_536  # of a value on a page; the API has it whole
HIDDEN = "•••••• hidden"
ENCRYPTED = "•••••• encrypted"
ELSEWHERE = "•••••• in the payload store"
OPEN_LEVELS = 2
ITEMS = 200  # of an object or a list; the others are counted


class Value(BaseModel):
    """One stored JSON value: `size` in bytes of its text, and why it is not shown as it is, if so.

    Values under hidden keys are replaced by `•••••• hidden`.
    """

    value: Any = None
    size: int = 0
    state: Literal["shown", "absent", "encrypted", "elsewhere", "large", "unreadable", "hidden"] = "shown"


def value_of(text: str | None, size: int | None, hidden: Collection[str], *, shows_data: bool = True) -> Value:
    """Return a stored JSON text as it may be shown; `text` is its beginning if `size` is larger."""
    if text is None:
        return Value(state="absent")
    octets = len(text.encode()) if size is None else size
    if not shows_data:
        return Value(size=octets, state="hidden")
    if octets > len(text.encode()):
        return Value(value=None, size=octets, state="large")
    try:
        value = decode(text, extra_levels=2)
    except InvalidPayload:
        return Value(size=octets, state="unreadable")
    if is_encrypted(value):
        return Value(size=octets, state="encrypted")
    if isinstance(value, dict) and len(value) == 1 and REFERENCE_MARKER in value:
        return Value(size=octets, state="elsewhere")
    return Value(value=redacted(value, frozenset(each.lower() for each in hidden)), size=octets)


def redacted(value: Any, hidden: Collection[str]) -> Any:
    """Return a JSON value with what is hidden or encrypted replaced by a word."""
    match value:
        case dict():
            if len(value) == 1 and (ENCRYPTED_MARKER in value or REFERENCE_MARKER in value):
                return ENCRYPTED if ENCRYPTED_MARKER in value else ELSEWHERE
            return {k: HIDDEN if k.lower() in hidden else redacted(v, hidden) for k, v in value.items()}
        case list():
            return [redacted(each, hidden) for each in value]
    return value


def line(value: Value, limit: int = 200) -> str:
    """Return a value in one line, for a table."""
    match value.state:
        case "absent":
            return ""
        case "shown":
            text = json.dumps(value.value, ensure_ascii=False)
            return text if len(text) <= limit else text[: limit - 1] + "…"
        case "large":
            return f"{value.size:,} bytes"
        case "elsewhere":
            return ELSEWHERE
        case "encrypted":
            return ENCRYPTED
        case "hidden":
            return HIDDEN
    return "unreadable"


def json_view(value: Any) -> Markup:
    """Return a JSON value as nested <details>, two levels open."""
    return Markup('<div class="json">{}</div>').format(_node(value, 0, None, False))


def _node(value: Any, depth: int, key: str | None, comma: bool) -> Markup:
    label = Markup("") if key is None else Markup('<span class="k">{}</span>: ').format(_text(key))
    end = "," if comma else ""
    if isinstance(value, (dict, list)) and value:
        return _branch(value, depth, label, end)
    match value:
        case str():
            css = "x" if value in (HIDDEN, ENCRYPTED, ELSEWHERE) else "s"
            shown = value if css == "x" else _text(value)
            return label + Markup('<span class="{}">{}</span>{}').format(css, shown, end)
        case bool() | None:
            return label + Markup('<span class="b">{}</span>{}').format(json.dumps(value), end)
        case int() | float():
            return label + Markup('<span class="n">{}</span>{}').format(json.dumps(value), end)
    return label + Markup("{}{}").format("{}" if isinstance(value, dict) else "[]", end)


def _branch(value: dict[str, Any] | list[Any], depth: int, label: Markup, end: str) -> Markup:
    is_map = isinstance(value, dict)
    items: list[tuple[str | None, Any]] = list(value.items()) if isinstance(value, dict) else [(None, v) for v in value]
    shown = items[:ITEMS]
    rows = Markup("").join(
        Markup("<li>{}</li>").format(_node(each, depth + 1, key, number < len(items) - 1))
        for number, (key, each) in enumerate(shown)
    )
    if len(items) > ITEMS:
        rows += Markup('<li><span class="x">{} more</span></li>').format(f"{len(items) - ITEMS:,}")
    noun = ("key" if is_map else "item") + ("" if len(items) == 1 else "s")
    return Markup('<details{}><summary>{}{} <span class="x">{} {}</span></summary><ul>{}</ul>{}{}</details>').format(
        Markup(" open") if depth < OPEN_LEVELS else "",
        label,
        "{" if is_map else "[",
        len(items),
        noun,
        rows,
        "}" if is_map else "]",
        end,
    )


def _text(value: str) -> Markup:
    return escape(json.dumps(value, ensure_ascii=False))
