"""Check what a reader asks for, value by value: texts, tags, JSON, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["check_tag_filter", "check_text", "encode_filter", "is_integer", "refuse"]


def refuse(name: str, value: Any, rule: str, hint: str | None = None) -> NoReturn:
    raise InvalidValue(f"{name}={value!r} cannot be: {rule}", hint=hint)


def is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def check_text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(name, value, "a string is needed")
    try:
        encode(value, what=name, limit=INPUT_LIMIT)
    except InvalidPayload as error:
        raise InvalidValue(str(error)) from None
    return value


def check_tag_filter(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        refuse("tags", given, "a list of strings is needed")
    tags = tuple(given)
    for each in tags:
        if not isinstance(each, str):
            refuse("tags", given, "each tag is a string")
        check_text("tags", each)
    return tags


def encode_filter(name: str, given: Any) -> str | None:
    if given is None:
        return None
    if name == "metadata" and not isinstance(given, Mapping):
        refuse(name, given, "a dict is needed")
    return encode(given, what=name, limit=INPUT_LIMIT)
