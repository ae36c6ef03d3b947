"""Which instance a call addresses, and the idempotency key that it is stored with; the same for every backend."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.unique import build_id
from pgflow.core.models.filters import Filters
from pgflow.core.values.names import SEPARATOR
from pgflow.core.values.query_args import check_text, refuse
from pgflow.errors import InvalidValue

__all__ = ["address", "call_name", "checked_key", "runs_filters"]

MAX_KEY_LENGTH = 200  # characters
MAX_NAME_LENGTH = 300


def address(workflow: VersionSet, value: str) -> str:
    """Return a value that identifies one instance.

    Raises `InvalidValue` for anything but text, and for a bare value where any number of instances may have it.
    """
    if check_text("value", value) is None:
        refuse("value", value, "a string is needed")
    if workflow.unique.scope == "none" and SEPARATOR not in value:
        raise InvalidValue(
            f"{workflow.name} may have many instances of {value!r}: its key has the scope 'none'",
            hint=f"Give the whole id, which start returned: '{workflow.unique.key}::{value}::…'.",
        )
    return value


def runs_filters(workflow: VersionSet, value: str, *, before: int | None = None, limit: int = 1) -> Filters:
    """Return the filters for a page of the runs of a value, by default the newest. Raises as `address`."""
    to = address(workflow, value)
    business_id = to if SEPARATOR in to else build_id(workflow.unique.key, to)
    return Filters.of({"id": business_id, "before": before, "limit": limit}, workflow)


def call_name(call: str, *names: str) -> str:
    """Return what a call does, to be stored with its idempotency key: truncated, with a hash suffix to stay unique.

    call_name("resume", "OrderFlow", "abc123", "paid")    # "resume OrderFlow abc123 paid"
    """
    name = " ".join((call, *names))
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}… {sha256(name.encode()).hexdigest()}"


def checked_key(key: Any) -> str | None:
    """Return an idempotency key, None for none. Raises `InvalidValue` unless it is a string of 1 to 200 characters."""
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= MAX_KEY_LENGTH and key.isprintable()):
        hint = f"Give a string of 1 to {MAX_KEY_LENGTH} characters, without control characters."
        raise InvalidValue(f"{key!r} is not a valid idempotency key", hint=hint)
    return key
