"""The durations that a step may wait for: greater than zero, and within PostgreSQL's range of dates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pgflow.core.values.duration import is_duration
from pgflow.errors import DefinitionError

__all__ = ["check_duration"]

_adapter = TypeAdapter(timedelta)


def check_duration(step: str, duration: Any) -> timedelta:
    """Return a duration as a timedelta, also from ISO 8601 text of stored configuration. Raises `DefinitionError`."""
    try:
        span = _adapter.validate_python(duration) if isinstance(duration, str) else duration
    except ValidationError:
        span = None
    if not is_duration(span) or not span:
        raise DefinitionError(
            f"{step} cannot wait for {duration!r}: give a timedelta greater than zero, up to 100 years, "
            "as in timedelta(minutes=5)"
        )
    return span
