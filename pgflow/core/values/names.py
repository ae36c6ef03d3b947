"""The rules for the names of events, steps, queues, tags and options, and for business ids."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from pgflow.errors import InvalidValue, UnknownOption

__all__ = [
    "MAX_TAGS",
    "OPERATOR",
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
MAX_TAGS = 32  # of an instance with its workflow's; sql/functions/start.sql and a constraint have the same limit
MAX_KEY_LENGTH = 100
SEPARATOR = "::"  # between the key and the value of a business id
SUFFIX = re.compile(r"[0-9a-f]{8}")  # of a business id in the scope "none"
OPERATOR = "pgflow:complete"  # the signal with which an operator completes a step; sql/functions/operator.sql sends it
TELEMETRY = "pgflow:telemetry"  # key in an instance's metadata: the `telemetry=` of its start


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
    """Return an instance's tags as a tuple; `own` are those of its workflow, for the limit. Raises `InvalidValue`.

    check_tags(["gift"], own=["orders"])    # ("gift",)
    """
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidValue(f"tags must be a list of strings, got {type(given).__name__}")
    tags = tuple(given)
    if not all(map(is_tag, tags)):
        raise InvalidValue("a tag must be a string of 1 to 64 characters, without control characters")
    if len(own) + len(tags) > MAX_TAGS:
        beside = f" and {len(own)} of its workflow" if own else ""
        raise InvalidValue(f"an instance can have at most {MAX_TAGS} tags, got {len(tags)}{beside}")
    return tags


def event_name(event: Any) -> Any:
    """Return the value of an enum member, as events may be given as one; anything else unchanged.

    event_name("paid")         # "paid"
    event_name(Event.PAID)     # "paid", when that is its value
    """
    return event.value if isinstance(event, Enum) else event


def check_options(what: str, given: Iterable[str], known: type[Any]) -> None:
    """Raise `UnknownOption` for a name that the TypedDict `known` does not have; `what` is "option" or "filter".

    check_options("filter", {"statsu": "failed"}, ListOptions)    # … did you mean 'status'?
    """
    names = known.__annotations__
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names)}."
            raise UnknownOption(f"there is no {what} {name!r}", hint=hint)


def bare_id(id: str) -> str:  # noqa: A002 -- "id" is the name for it in the whole API
    """Return a business id without the random suffix that it has in the scope "none".

    bare_id("visit::ann::0a1b2c3d")    # "visit::ann"
    """
    head, _, suffix = id.rpartition(SEPARATOR)
    return head if SEPARATOR in head and SUFFIX.fullmatch(suffix) else id
