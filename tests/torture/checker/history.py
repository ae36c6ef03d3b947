"""The history of a run: records of the callers, the steps, the database and the fault injector."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from tests.torture.install.audit import Change

__all__ = ["ENDED", "History", "InstanceHistory", "TaskHistory", "seconds_of", "title"]

ENDED = frozenset({"completed", "failed", "cancelled"})


def seconds_of(moment: str) -> float:
    """Convert a timestamp from PostgreSQL's JSON to seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


@dataclass(slots=True)
class InstanceHistory:
    """One run: the changes of its row and jobs, its results, and the executions of its steps (`bodies`)."""

    run: int
    changes: list[Change] = field(default_factory=list)
    jobs: dict[int, list[Change]] = field(default_factory=dict)
    results: list[Change] = field(default_factory=list)  # inserts
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
        """The final status."""
        return str(self._row["status"])

    @property
    def error(self) -> Mapping[str, Any]:
        """The error that it failed with."""
        return self._row.get("error") or {}

    @property
    def retries(self) -> int:
        """How often it was retried after a failure."""
        return sum(
            each.was is not None and each.now is not None and each.was["status"] == "failed" != each.now["status"]
            for each in self.changes
        )

    @property
    def moves(self) -> list[Change]:
        """All changes of its jobs, in order."""
        return sorted((each for job in self.jobs.values() for each in job), key=lambda each: each.seq)

    def result(self, step: str) -> Mapping[str, Any] | None:
        """Return the result of a step."""
        return next((each.row for each in self.results if each.row["step"] == step), None)

    @property
    def _row(self) -> Mapping[str, Any]:
        return self.changes[-1].row


@dataclass(slots=True)
class TaskHistory:
    """One job of a task: the changes of its job and its result, and its executions (`bodies`)."""

    id: int
    jobs: list[Change] = field(default_factory=list)
    results: list[Change] = field(default_factory=list)
    bodies: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.jobs[0].row["step"]) if self.jobs else "?"

    @property
    def args(self) -> Mapping[str, Any]:
        """Its arguments."""
        return (self.jobs[0].row["args"] if self.jobs else None) or {}

    @property
    def token(self) -> str | None:
        """What identifies the call that enqueued it; None for a hook."""
        return self.args.get("token")

    @property
    def status(self) -> str:
        """The final status, "unfinished" without one."""
        return str(self.results[-1].row["status"]) if self.results and self.results[-1].op == "insert" else "unfinished"

    @property
    def lives(self) -> list[tuple[float, float, str | None]]:
        """When it was unfinished, from and to, with its unique key."""
        spans: list[tuple[float, float, str | None]] = []
        for change in self.jobs:
            if change.op == "insert":
                spans.append((change.at, float("inf"), change.row["unique_key"]))
            elif change.op == "delete" and spans:
                spans[-1] = (spans[-1][0], change.at, spans[-1][2])
        return spans


def title(change: Change) -> str:
    """Return how a message names the job of a change."""
    row = change.row
    return f"job {row['id']} of {row['step']}" if row["run"] is None else f"job {row['id']} of run {row['run']}"


@dataclass(frozen=True)
class History:
    """All records of a run. `skew` added to this machine's monotonic seconds gives seconds since 1970.

    `injections` are the faults: name, aim, and from when to when. `logs` are the workers' and `server_logs`
    PostgreSQL's, by name. `graphs` has the `Graph.spec()` of each workflow, `hooks` those of each task, `times` the
    workers' lease, sweep and poll. `effects` are (run, step, nonce); run 0 is a caller, -7 the task's job 7.
    """

    changes: Sequence[Change]
    calls: Sequence[Mapping[str, Any]]
    bodies: Sequence[Mapping[str, Any]]
    effects: Sequence[tuple[int, str, str]]
    injections: Sequence[Mapping[str, Any]]
    logs: Mapping[str, str]
    graphs: Mapping[str, Mapping[str, Any]]
    skew: float
    times: Mapping[str, float]
    metrics: Sequence[Mapping[str, Any]] = ()
    server_logs: Mapping[str, str] = field(default_factory=dict)
    executions: Sequence[Mapping[str, Any]] = ()  # of tasks
    hooks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def wall(self, nanoseconds: int) -> float:
        """Convert monotonic nanoseconds to seconds since 1970."""
        return nanoseconds / 1e9 + self.skew

    @cached_property
    def instances(self) -> dict[int, InstanceHistory]:
        """All runs by run id. A run that only its steps know has no changes."""
        found: dict[int, InstanceHistory] = {}

        def of(run: int) -> InstanceHistory:
            return found.setdefault(run, InstanceHistory(run))

        for change in self.changes:
            row = change.row
            match change.relation:
                case "instances":
                    of(row["run"]).changes.append(change)
                case "jobs" if row["run"] is not None:
                    of(row["run"]).jobs.setdefault(row["id"], []).append(change)
                case "step_results":
                    instance = of(row["run"])
                    (instance.results if change.op == "insert" else instance.folds).append(change)
                case "signals":
                    of(row["run"]).signals.append(change)
        for body in self.bodies:
            of(body["run"]).bodies.append(body)
        return found

    @cached_property
    def tasks(self) -> dict[int, TaskHistory]:
        """All jobs of tasks, by id. One that only its executions know has no changes."""
        found: dict[int, TaskHistory] = {}
        for change in self.changes:
            if change.relation == "jobs" and change.row["run"] is None:
                found.setdefault(change.row["id"], TaskHistory(change.row["id"])).jobs.append(change)
            elif change.relation == "task_results":
                found.setdefault(change.row["id"], TaskHistory(change.row["id"])).results.append(change)
        for body in self.executions:
            found.setdefault(body["job"], TaskHistory(body["job"])).bodies.append(body)
        return found

    @cached_property
    def jobs(self) -> dict[int, list[Change]]:
        """The changes of each job, of instances and tasks."""
        found: dict[int, list[Change]] = defaultdict(list)
        for change in self.changes:
            if change.relation == "jobs":
                found[change.row["id"]].append(change)
        return found

    @cached_property
    def by_id(self) -> dict[str, list[InstanceHistory]]:
        """The runs of each business id, in order."""
        found: dict[str, list[InstanceHistory]] = defaultdict(list)
        for run in sorted(self.instances):
            if self.instances[run].changes:
                found[self.instances[run].id].append(self.instances[run])
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
        """The changes by which each worker lost jobs, by its id."""
        found: dict[int, list[Change]] = defaultdict(list)
        for change in self.changes:
            was, now = change.was, change.now or {}
            if change.relation == "jobs" and was is not None and was["worker"] not in (None, now.get("worker")):
                found[was["worker"]].append(change)
        return found

    @cached_property
    def shifts(self) -> list[tuple[float, float]]:
        """The periods in which at least one worker was alive, by its lease."""
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
        """Return how many of the seconds between two times at least one worker was alive."""
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in self.shifts)

    def injections_between(self, start: float, end: float) -> list[Mapping[str, Any]]:
        """Return the faults that were active, or had effects, between two times in seconds since 1970."""
        return [each for each in self.injections if each["from"] <= end and each["to"] + self.bound >= start]

    @property
    def bound(self) -> float:
        """Seconds within which a dead worker's jobs run again: lease + sweep + poll, and slack for a busy machine."""
        return self.times["lease"] + self.times["sweep"] + self.times["poll"] + self.times["slack"]

    def hits(self, *faults: str) -> int:
        """Count the applications of faults whose names start with one of these."""
        return sum(each["hits"] for each in self.injections if each["fault"].startswith(faults) and each["hits"])

    def log_matches(self, pattern: str) -> int:
        """Count the matches of a pattern in the workers' logs."""
        return sum(len(re.findall(pattern, text)) for text in self.logs.values())


def _is_beat(change: Change) -> bool:
    """Whether a lease was acquired or renewed, not ended."""
    was, now = change.was, change.now
    return now is not None and (was is None or now["lease_expires_at"] > was["lease_expires_at"])
