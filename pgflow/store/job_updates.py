"""What a settle writes: a small value per effect, encoded as one group of arrays per effect.

`sql/README.md` lists the groups, their columns and what `job/settle.sql` writes for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, TypeAlias

from pgflow.core.engine.state import Status
from pgflow.database.arrays import Array, Bigints, Booleans, Doubles, Integers, Smallints, Texts

__all__ = [
    "Advance",
    "Branch",
    "Effect",
    "End",
    "Fail",
    "InstanceUpdate",
    "JobUpdate",
    "Move",
    "Park",
    "Result",
    "Retry",
    "Snooze",
    "encode",
]


@dataclass(frozen=True, slots=True)
class Move:
    """The job moves to the next step. `keep`: it stays with this worker, unless something more urgent is ready."""

    step: str
    config: str | None
    queue: str
    priority: int
    max_attempts: int
    solo: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Park:
    """The job waits in `queue` (None: its own) for a signal in `awaits`, or `seconds` (None: for a signal only)."""

    queue: str | None
    awaits: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Retry:
    """The step runs again after a back-off, by its retry policy. `errors` are those of all attempts so far."""

    errors: str
    backoff: str
    base: float
    cap: float
    jitter: float


@dataclass(frozen=True, slots=True)
class Snooze:
    """The step runs again after `seconds` (None: the job is released); the attempt does not count."""

    seconds: float | None = None
    errors: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The job is deleted: its branch of the instance has ended."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The instance fails, by its `InstanceUpdate`, and all its jobs are deleted with it."""


Effect: TypeAlias = Move | Park | Retry | Snooze | End | Fail


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the job's step. `stored`: it was recorded before, without being applied."""

    event: str
    targets: str | None = None
    output: str | None = None
    metadata: str | None = None
    errors: str | None = None
    seconds: float = 0.0
    applied: bool = True
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Advance:
    """The alternative to an effect, if the instance has moved on: an advance job, in `queue` (None: its own).

    `keeps_result`: the job's result is recorded, and the advance job applies it; otherwise it decides again.
    """

    queue: str | None = None
    awaits: str | None = None
    keeps_result: bool = False


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What a settle does with one claimed job; written only if the job still is this worker's, in this attempt.

    With `advance` the effect depends on the instance: it is written together with the instance's `InstanceUpdate`, or
    not at all. `signal` is consumed with it.
    """

    id: int
    run: int
    attempt: int
    step: str
    kind: str
    effect: Effect
    result: Result | None = None
    advance: Advance | None = None
    signal: int | None = None

    @property
    def guarded(self) -> bool:
        """Whether it is written only together with the update of its instance."""
        return self.advance is not None or isinstance(self.effect, Fail)


@dataclass(frozen=True, slots=True)
class InstanceUpdate:
    """How an instance changes; `revision` is the one that was decided on (None: any)."""

    run: int
    revision: int | None
    status: Status | None = None
    metadata: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A job to insert: a further branch of a fan-out, or of an instance that is retried. `keep` as in `Move`."""

    run: int
    step: str
    config: str | None
    queue: str
    priority: int
    max_attempts: int
    keep: bool = False
    kind: str = "execute"


# The arrays of the columns that are not text.
ARRAYS: Mapping[str, type[Array]] = {
    **dict.fromkeys(("id", "run", "signal", "job"), Bigints),
    **dict.fromkeys(("attempt", "revision"), Integers),
    **dict.fromkeys(("priority", "max_attempts"), Smallints),
    **dict.fromkeys(("seconds", "base", "cap", "jitter"), Doubles),
    **dict.fromkeys(("guarded", "stored", "applied", "keeps_result", "solo", "keep"), Booleans),
}


class Group:
    """A group of arrays: one per column, each a parameter `<prefix>_<column>` of the statement."""

    def __init__(self, prefix: str, columns: Iterable[str]) -> None:
        self._columns = [(f"{prefix}_{name}", ARRAYS.get(name, Texts), attrgetter(name)) for name in columns]
        self.empty: Mapping[str, Array] = {name: array() for name, array, _ in self._columns}

    def arrays(self, rows: Sequence[Any]) -> Mapping[str, Array]:
        """Return the arrays of these rows."""
        if not rows:
            return self.empty
        return {name: array(map(read, rows)) for name, array, read in self._columns}


class EffectGroup(Group):
    """A group whose first column is the id of the job."""

    def __init__(self, prefix: str, kind: type) -> None:
        super().__init__(prefix, [field.name for field in fields(kind)])
        self._job = f"{prefix}_job"
        self.empty = {self._job: Bigints(), **self.empty}

    def of_jobs(self, rows: Sequence[tuple[int, Any]]) -> Mapping[str, Array]:
        """Return the arrays of these (job, row)."""
        if not rows:
            return self.empty
        jobs, effects = zip(*rows, strict=True)
        return {self._job: Bigints(jobs), **self.arrays(effects)}


JOBS = Group("job", ("id", "run", "attempt", "step", "kind", "guarded", "signal"))
INSTANCES = Group("instance", [field.name for field in fields(InstanceUpdate)])
BRANCHES = Group("branch", [field.name for field in fields(Branch)])
EFFECTS: Mapping[type, EffectGroup] = {  # not `Fail`: it is the status of the instance's update
    kind: EffectGroup(kind.__name__.lower(), kind) for kind in (Result, Advance, Move, Park, Retry, Snooze, End)
}


def encode(
    updates: Sequence[JobUpdate], instances: Sequence[InstanceUpdate], branches: Sequence[Branch]
) -> dict[str, Array]:
    """Return the parameters of `job/settle.sql` that hold these."""
    rows: defaultdict[type, list[tuple[int, Any]]] = defaultdict(list)
    for update in updates:
        for part in (update.effect, update.result, update.advance):
            if part is not None:
                rows[type(part)].append((update.id, part))
    params: dict[str, Array] = {}
    for group, each in ((JOBS, updates), (INSTANCES, instances), (BRANCHES, branches)):
        params.update(group.arrays(each))
    for kind, effect in EFFECTS.items():
        params.update(effect.of_jobs(rows[kind]))
    return params
