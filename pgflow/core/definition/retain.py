"""How long ended instances are kept: of an app, of a workflow, of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pgflow.core.values.duration import MAX_DURATION, is_duration
from pgflow.errors import InvalidValue

__all__ = ["DEFAULT_RETAIN", "Retain"]

MAX_COUNT = 1_000_000


@dataclass(frozen=True, slots=True)
class Retain:
    """How long instances are kept after they have ended; None leaves that to the app, and to the default of the app.

    `completed` is for completed instances (default of an app: 7 days), `failed` for failed and cancelled ones (30
    days); `timedelta.max` keeps them forever. `max_count` keeps at most so many ended instances of a workflow, the
    newest. Workers delete the others in batches. Raises `InvalidValue`.

        class OrderFlow(Workflow[Order], unique=Unique("orderid"), retain=Retain(completed=timedelta(days=90))): ...
        app = Pgflow(dsn, [OrderFlow], retention=Retain(failed=timedelta(days=60)))
    """

    completed: timedelta | None = None
    failed: timedelta | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        for name in ("completed", "failed"):
            value = getattr(self, name)
            if value is not None and value != timedelta.max and not is_duration(value):
                raise InvalidValue(
                    f"Retain: {name} must be a timedelta from zero to {MAX_DURATION.days} days, got {value!r}",
                    hint="Write timedelta(days=30), or timedelta.max to keep them forever.",
                )
        count = self.max_count
        is_number = isinstance(count, int) and not isinstance(count, bool)
        if count is not None and not (is_number and 0 <= count <= MAX_COUNT):
            raise InvalidValue(f"Retain: max_count must be a whole number from 0 to {MAX_COUNT:,}, got {count!r}")

    def over(self, other: Retain) -> Retain:
        """Return these settings, with those of `other` where this one has none.

        Retain(failed=timedelta(days=60)).over(DEFAULT_RETAIN).completed    # timedelta(days=7)
        """
        return Retain(
            completed=other.completed if self.completed is None else self.completed,
            failed=other.failed if self.failed is None else self.failed,
            max_count=other.max_count if self.max_count is None else self.max_count,
        )

    def spec(self) -> Mapping[str, Any]:
        """Return the settings as JSON, for a definition: seconds, null for forever; without those that are not set."""
        spans = {"completed": self.completed, "failed": self.failed}
        found: dict[str, Any] = {
            name: None if span == timedelta.max else span.total_seconds()
            for name, span in spans.items()
            if span is not None
        }
        return found if self.max_count is None else {**found, "max": self.max_count}


DEFAULT_RETAIN = Retain(completed=timedelta(days=7), failed=timedelta(days=30))
