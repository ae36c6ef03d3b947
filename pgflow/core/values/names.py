"""The rules for names: of events, steps and options; and how one is made from a Python name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from pgflow.errors import InvalidValue, UnknownOption

__all__ = [
    "MAX_TAGS",
    "SEPARATOR",
    "SUFFIX",
    "TELEMETRY",
    "bare_id",
    "check_options",
    "check_tags",
    "event_name",
    "is_event",
    "is_key",
    "is_queue",
    "is_tag",
    "snake_case",
]

WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
EVENT = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}")
QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
TAG = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}")
MAX_TAGS = 32  # of an instance, its workflow's included; sql/functions/start.sql and a constraint say it, too
MAX_KEY_LENGTH = 100
SEPARATOR = "::"  # between the key and the value of a business id
SUFFIX = re.compile(r"[0-9a-f]{8}")  # of a business id in the scope "none"
TELEMETRY = "pgflow:telemetry"  # in an instance's metadata: what its starter gave along for telemetry


def snake_case(name: str) -> str:
    """Return a class name as a step key: `ValidateOrder` is `validate_order`, `HTTPCall` is `http_call`."""
    return WORD_BORDER.sub("_", name).lower()


def is_key(name: object) -> bool:
    """Whether `name` can be the key of a step: up to 100 letters, digits and underscores, not starting with a digit."""
    return isinstance(name, str) and name.isidentifier() and len(name) <= MAX_KEY_LENGTH


def is_event(name: object) -> bool:
    """Whether `name` can be the name of an event: 1 to 100 characters, without white space or control characters."""
    return isinstance(name, str) and EVENT.fullmatch(name) is not None


def is_queue(name: object) -> bool:
    """Whether `name` can be the name of a queue: up to 63 ASCII letters, digits, underscores, dots and hyphens."""
    return isinstance(name, str) and QUEUE.fullmatch(name) is not None


def is_tag(name: object) -> bool:
    """Whether `name` can be a tag: 1 to 64 characters, without control characters."""
    return isinstance(name, str) and TAG.fullmatch(name) is not None


def check_tags(given: Any, own: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the tags that an instance is given, beside the `own` ones of its workflow. Raises `InvalidValue`.

    check_tags(["gift"], own=["orders"])    # ("gift",)
    """
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidValue(f"tags is {type(given).__name__}, and a list of strings is needed")
    tags = tuple(given)
    if not all(map(is_tag, tags)):
        raise InvalidValue("one of the tags is refused: a tag has 1 to 64 characters, without control characters")
    if len(own) + len(tags) > MAX_TAGS:
        beside = f" beside the {len(own)} of the workflow" if own else ""
        raise InvalidValue(f"{len(tags)} tags are refused{beside}: an instance has {MAX_TAGS} at most")
    return tags


def event_name(event: Any) -> Any:
    """Return the name of an event that may be given as a member of an enum; anything else comes back as it is.

    event_name("paid")         # "paid"
    event_name(Event.PAID)     # "paid", when that is its value
    """
    return event.value if isinstance(event, Enum) else event


def check_options(what: str, given: Iterable[str], known: type[Any]) -> None:
    """Raise `UnknownOption` for the name of an option, or of a filter, that the TypedDict `known` does not have.

    check_options("filter", {"statsu": "failed"}, ListOptions)    # … did you mean 'status'?
    """
    names = known.__annotations__
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
            raise UnknownOption(f"there is no {what} {name!r}", hint=hint)


def bare_id(id: str) -> str:  # noqa: A002 -- "id" is the word for it in all of the API
    """Return a business id without the suffix that it has where no uniqueness is needed.

    bare_id("visit::ann::0a1b2c3d")    # "visit::ann"
    """
    head, _, suffix = id.rpartition(SEPARATOR)
    return head if SEPARATOR in head and SUFFIX.fullmatch(suffix) else id
