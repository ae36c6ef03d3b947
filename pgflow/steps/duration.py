"""The durations that a step may wait for: more than nothing, and no longer than PostgreSQL's calendar will do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pgflow.core.values.duration import is_duration
from pgflow.errors import DefinitionError

__all__ = ["check_duration"]

_adapter = TypeAdapter(timedelta)


def check_duration(step: str, duration: Any) -> timedelta:
    """Return a timedelta; its ISO 8601 text, as stored configuration has it, will do. Raises `DefinitionError`."""
    try:
        span = _adapter.validate_python(duration) if isinstance(duration, str) else duration
    except ValidationError:
        span = None
    if not is_duration(span) or not span:
        raise DefinitionError(
            f"{step} cannot wait for {duration!r}: give a timedelta of more than nothing, and of 100 years at most, "
            "as in timedelta(minutes=5)"
        )
    return span
