"""Validate the arguments of queries: text, tags, JSON and numbers. All functions raise `InvalidValue`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pgflow.core.values.payload import METADATA_LIMIT, encode
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["check_tag_filter", "check_text", "encode_filter", "is_integer", "refuse"]


def refuse(name: str, value: Any, rule: str, hint: str | None = None) -> NoReturn:
    """Raise `InvalidValue`; `rule` completes the message "limit=0 is refused: …"."""
    raise InvalidValue(f"{name}={value!r} is refused: {rule}", hint=hint)


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether `value` is an int, and not a bool, from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def check_text(name: str, value: Any) -> str | None:
    """Return a string that PostgreSQL can store, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(name, value, "it must be a string")
    try:
        encode(value, what=name, limit=METADATA_LIMIT)
    except InvalidPayload as error:
        raise InvalidValue(str(error)) from None
    return value


def check_tag_filter(given: Any) -> tuple[str, ...]:
    """Return tags to filter by, none for None."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        refuse("tags", given, "it must be a list of strings")
    tags = tuple(given)
    for each in tags:
        if not isinstance(each, str):
            refuse("tags", given, "each tag must be a string")
        check_text("tags", each)
    return tags


def encode_filter(name: str, given: Any) -> str | None:
    """Return a filter's value as JSON text, or None. Raises `InvalidPayload` for a value that JSON cannot represent."""
    if given is None:
        return None
    if name == "metadata" and not isinstance(given, Mapping):
        refuse(name, given, "it must be a dict")
    return encode(given, what=name, limit=METADATA_LIMIT)
