"""Schedules: each instant is fired once (I22)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.torture.checker.history import History

__all__ = ["fired_instants", "instants_fire_once"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instants_fire_once(history: History) -> Iterator[str]:
    """I22: each instant of a schedule, up to the last that was handled, has started exactly one run."""
    for name, row in _schedules(history).items():
        expected, fired = set(_instants(row)), fired_instants(history, name)
        for instant, runs in fired.items():
            if len(runs) > 1:
                yield f"the schedule {name} has fired {instant} {len(runs)} times, also in run {runs[-1]}"
            if instant not in expected:
                yield f"the schedule {name} has fired {instant}, which is not one of its instants, in run {runs[0]}"
        for instant in sorted(expected - fired.keys()):
            yield f"the schedule {name} has never fired {instant}, and goes on after {row['handled_at']}"


def fired_instants(history: History, name: str | None = None) -> dict[datetime, list[int]]:
    """Return the runs of each instant of a schedule (None: of all)."""
    found: dict[datetime, list[int]] = {}
    for instance in history.instances.values():
        if instance.changes and "@" in instance.id:
            schedule, _, instant = instance.id.rpartition("::")[2].partition("@")
            if name in (None, schedule):
                found.setdefault(datetime.fromisoformat(instant), []).append(instance.run)
    return found


def _schedules(history: History) -> dict[str, dict[str, Any]]:
    """Return the last row of each schedule."""
    return {change.row["name"]: dict(change.row) for change in history.changes if change.relation == "schedules"}


def _instants(row: dict[str, Any]) -> Iterator[datetime]:
    """Yield the instants of an interval after its creation, up to the last that was handled."""
    period = timedelta(seconds=row["every"])
    created, handled = datetime.fromisoformat(row["created_at"]), datetime.fromisoformat(row["handled_at"])
    instant = EPOCH + ((created - EPOCH) // period + 1) * period
    while instant <= handled:
        yield instant
        instant += period
