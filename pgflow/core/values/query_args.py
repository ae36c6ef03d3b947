"""Check what a reader asks for, value by value: texts, tags, JSON, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pgflow.core.values.payload import INPUT_LIMIT, encode
from pgflow.errors import InvalidPayload, InvalidValue

__all__ = ["is_integer", "json_of", "refuse", "tags_of", "text_of"]


def refuse(name: str, value: Any, rule: str, hint: str | None = None) -> NoReturn:
    raise InvalidValue(f"{name}={value!r} cannot be: {rule}", hint=hint)


def is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def text_of(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        refuse(name, value, "a string is needed")
    try:
        encode(value, what=name, limit=INPUT_LIMIT)
    except InvalidPayload as error:
        raise InvalidValue(str(error)) from None
    return value


def tags_of(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        refuse("tags", given, "a list of strings is needed")
    tags = tuple(given)
    for each in tags:
        if not isinstance(each, str):
            refuse("tags", given, "each tag is a string")
        text_of("tags", each)
    return tags


def json_of(name: str, given: Any) -> str | None:
    if given is None:
        return None
    if name == "metadata" and not isinstance(given, Mapping):
        refuse(name, given, "a dict is needed")
    return encode(given, what=name, limit=INPUT_LIMIT)
