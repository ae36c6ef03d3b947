"""What happened in a run, from four sides: the callers', the steps', the database's, and that of who did the harm."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from tests.torture.install.audit import Change

__all__ = ["ENDED", "History", "Story", "seconds_of"]

ENDED = frozenset({"completed", "failed", "cancelled"})


def seconds_of(moment: str) -> float:
    """Return what PostgreSQL writes of a moment into JSON as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


@dataclass(slots=True)
class Story:
    """One run of an instance: the changes of its row and of its tokens, what was recorded, and its steps' bodies."""

    run: int
    instance: list[Change] = field(default_factory=list)
    tokens: dict[int, list[Change]] = field(default_factory=dict)
    results: list[Change] = field(default_factory=list)  # insertions
    folds: list[Change] = field(default_factory=list)  # results that were applied later
    signals: list[Change] = field(default_factory=list)
    bodies: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The business id."""
        return str(self._row["id"])

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return str(self._row["workflow"])

    @property
    def status(self) -> str:
        """The status that it had in the end."""
        return str(self._row["status"])

    @property
    def error(self) -> Mapping[str, Any]:
        """Why it failed."""
        return self._row.get("error") or {}

    @property
    def retries(self) -> int:
        """How often it was taken up again after it had failed."""
        return sum(
            each.was is not None and each.now is not None and each.was["status"] == "failed" != each.now["status"]
            for each in self.instance
        )

    @property
    def moves(self) -> list[Change]:
        """All changes of all its tokens, in their order."""
        return sorted((each for token in self.tokens.values() for each in token), key=lambda each: each.seq)

    def result(self, step: str) -> Mapping[str, Any] | None:
        """What was recorded of a step."""
        return next((each.row for each in self.results if each.row["step"] == step), None)

    @property
    def _row(self) -> Mapping[str, Any]:
        return self.instance[-1].row


@dataclass(frozen=True)
class History:
    """All that was noted. `skew` is what turns monotonic seconds of this machine into seconds since 1970.

    `blows` are the faults, as the nemesis noted them: kind, what it was aimed at, from when to when. `logs` are the
    workers' and `server_logs` PostgreSQL's, by name. `graphs` has for each workflow what `Graph.spec()` says of it,
    `times` the lease, sweep and poll of the workers.
    """

    changes: Sequence[Change]
    calls: Sequence[Mapping[str, Any]]
    bodies: Sequence[Mapping[str, Any]]
    effects: Sequence[tuple[int, str, str]]
    blows: Sequence[Mapping[str, Any]]
    logs: Mapping[str, str]
    graphs: Mapping[str, Mapping[str, Any]]
    skew: float
    times: Mapping[str, float]
    gauges: Sequence[Mapping[str, Any]] = ()
    server_logs: Mapping[str, str] = field(default_factory=dict)

    def wall(self, nanoseconds: int) -> float:
        """Turn a moment of the monotonic clock into seconds since 1970."""
        return nanoseconds / 1e9 + self.skew

    @cached_property
    def stories(self) -> dict[int, Story]:
        """All runs, by their number; bodies of runs that the database does not know have a story without rows."""
        found: dict[int, Story] = {}

        def of(run: int) -> Story:
            return found.setdefault(run, Story(run))

        for change in self.changes:
            row = change.row
            match change.relation:
                case "instances":
                    of(row["run"]).instance.append(change)
                case "jobs":
                    of(row["run"]).tokens.setdefault(row["id"], []).append(change)
                case "step_results":
                    story = of(row["run"])
                    (story.results if change.op == "insert" else story.folds).append(change)
                case "signals":
                    of(row["run"]).signals.append(change)
        for body in self.bodies:
            of(body["run"]).bodies.append(body)
        return found

    @cached_property
    def by_id(self) -> dict[str, list[Story]]:
        """The runs of each business id, in their order."""
        found: dict[str, list[Story]] = defaultdict(list)
        for run in sorted(self.stories):
            if self.stories[run].instance:
                found[self.stories[run].id].append(self.stories[run])
        return found

    @cached_property
    def leases(self) -> dict[int, list[Change]]:
        """The changes of each worker's row."""
        found: dict[int, list[Change]] = defaultdict(list)
        for change in self.changes:
            if change.relation == "workers":
                found[change.row["id"]].append(change)
        return found

    @cached_property
    def departures(self) -> dict[int, list[Change]]:
        """The changes by which tokens left each worker, by its number."""
        found: dict[int, list[Change]] = defaultdict(list)
        for change in self.changes:
            was, now = change.was, change.now or {}
            if change.relation == "jobs" and was is not None and was["worker"] not in (None, now.get("worker")):
                found[was["worker"]].append(change)
        return found

    @cached_property
    def shifts(self) -> list[tuple[float, float]]:
        """The times in which at least one worker was there, by the leases that were taken and renewed."""
        spans = []
        for changes in self.leases.values():
            beats = [each.at for each in changes if _is_beat(each)]
            if beats:
                spans.append((beats[0], beats[-1]))
        merged: list[tuple[float, float]] = []
        for start, end in sorted(spans):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def attended(self, start: float, end: float) -> float:
        """How many of the seconds between two moments somebody was there to do what was due."""
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in self.shifts)

    def blows_between(self, start: float, end: float) -> list[Mapping[str, Any]]:
        """The faults that were on at some moment between two, in seconds since 1970, with what follows from them."""
        return [each for each in self.blows if each["from"] <= end and each["to"] + self.bound >= start]

    @property
    def bound(self) -> float:
        """Seconds within which a dead worker's steps run again: lease + sweep + poll, and this machine's share."""
        return self.times["lease"] + self.times["sweep"] + self.times["poll"] + self.times["slack"]

    def hits(self, *harms: str) -> int:
        """How often harm whose name begins so was applied to something."""
        return sum(each["hits"] for each in self.blows if each["harm"].startswith(harms) and each["hits"])

    def said(self, pattern: str) -> int:
        """How often something stands in the workers' logs."""
        return sum(len(re.findall(pattern, text)) for text in self.logs.values())


def _is_beat(change: Change) -> bool:
    """Whether a lease was taken or renewed. One that is made to end shows nobody."""
    was, now = change.was, change.now
    return now is not None and (was is None or now["lease_expires_at"] > was["lease_expires_at"])
