"""What a settle writes: a small value per effect, encoded as one group of arrays per effect.

`sql/README.md` lists the groups, their columns and what `job/settle.sql` writes for each. The values are named tuples,
because a worker makes several per step and a frozen dataclass takes twice as long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from pgflow.core.engine.state import Status
from pgflow.database.arrays import Array, Bigints, Booleans, Doubles, Integers, Smallints, Texts

__all__ = [
    "Advance",
    "Branch",
    "Effect",
    "End",
    "Fail",
    "Finish",
    "InstanceUpdate",
    "JobUpdate",
    "Move",
    "Park",
    "Pause",
    "Result",
    "Retry",
    "Snooze",
    "encode",
]


class Move(NamedTuple):
    """The job moves to the next step. `keep`: it stays with this worker, unless something more urgent is ready."""

    step: str
    config: str | None
    queue: str
    priority: int
    max_attempts: int
    solo: bool
    keep: bool


class Park(NamedTuple):
    """The job waits in `queue` (None: its own) for a signal in `awaits`, or `seconds` (None: for a signal only)."""

    queue: str | None
    awaits: str
    seconds: float | None


class Pause(NamedTuple):
    """The job waits in `queue` for an operator. `errors` are those of all attempts."""

    queue: str
    errors: str


class Retry(NamedTuple):
    """The step runs again after a back-off, by its retry policy. `errors` are those of all attempts so far."""

    errors: str
    backoff: str
    base: float
    cap: float
    jitter: float


class Snooze(NamedTuple):
    """The step runs again after `seconds` (None: the job is released); the attempt does not count.

    `began`: the step has run, so that the job no longer expires.
    """

    seconds: float | None = None
    errors: str | None = None
    began: bool = False


class End(NamedTuple):
    """The job is deleted: its branch of the instance has ended."""


class Fail(NamedTuple):
    """The instance fails, by its `InstanceUpdate`, and all its jobs are deleted with it."""


Effect: TypeAlias = Move | Park | Pause | Retry | Snooze | End | Fail


class Result(NamedTuple):
    """The result of the job's step. `stored`: it was recorded before, without being applied."""

    event: str
    targets: str | None = None
    output: str | None = None
    metadata: str | None = None
    errors: str | None = None
    seconds: float = 0.0
    applied: bool = True
    stored: bool = False


class Advance(NamedTuple):
    """The alternative to an effect, if the instance has moved on: an advance job, in `queue` (None: its own).

    `keeps_result`: the job's result is recorded, and the advance job applies it; otherwise it decides again. `errors`
    replace those of the job.
    """

    queue: str | None = None
    awaits: str | None = None
    keeps_result: bool = False
    errors: str | None = None


class JobUpdate(NamedTuple):
    """What a settle does with one claimed job; written only if the job still is this worker's, in this attempt.

    With `advance` the effect depends on the instance: it is written together with the instance's `InstanceUpdate`, or
    not at all. `signal` is consumed with it.
    """

    id: int
    run: int | None
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


class Finish(NamedTuple):
    """A task ends with this `status`: its job is deleted, and its result is recorded. It has its own fence.

    `seconds` is how long the last attempt took, None if it did not run to an outcome.
    """

    job: int
    attempt: int
    status: Status
    output: str | None = None
    error: str | None = None
    seconds: float | None = None
    hook: bool = False


class InstanceUpdate(NamedTuple):
    """How an instance changes; `revision` is the one that was decided on (None: any). `hook`: its end may have one."""

    run: int
    revision: int | None
    status: Status | None = None
    metadata: str | None = None
    error: str | None = None
    hook: bool = False


class Branch(NamedTuple):
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
    **dict.fromkeys(("guarded", "stored", "applied", "keeps_result", "solo", "keep", "began", "hook"), Booleans),
}


class Group:
    """A group of arrays: one per column, each a parameter `<prefix>_<column>` of the statement."""

    def __init__(self, prefix: str, columns: Iterable[str]) -> None:
        self._columns = [(f"{prefix}_{name}", ARRAYS.get(name, Texts)) for name in columns]
        self._empty: Mapping[str, Array] = {name: array() for name, array in self._columns}

    def arrays(self, rows: Sequence[tuple[Any, ...]]) -> Mapping[str, Array]:
        """Return the arrays of these rows."""
        if not rows:
            return self._empty
        return {name: array(items) for (name, array), items in zip(self._columns, zip(*rows, strict=True), strict=True)}


FENCE = ("id", "run", "attempt", "step", "kind", "guarded", "signal")
JOBS = Group("job", FENCE)
INSTANCES = Group("instance", InstanceUpdate._fields)
BRANCHES = Group("branch", Branch._fields)
FINISHES = Group("finish", Finish._fields)
BY_JOB: Mapping[type, Group] = {  # not `Fail`: it is the status of the instance's update
    kind: Group(kind.__name__.lower(), ("job", *kind._fields))
    for kind in (Result, Advance, Move, Park, Pause, Retry, Snooze, End)
}


def encode(
    updates: Sequence[JobUpdate],
    instances: Sequence[InstanceUpdate],
    branches: Sequence[Branch],
    finishes: Sequence[Finish] = (),
) -> dict[str, Array]:
    """Return the parameters of `job/settle.sql` that hold these."""
    rows: defaultdict[type, list[tuple[Any, ...]]] = defaultdict(list)
    for update in updates:
        for part in (update.effect, update.result, update.advance):
            if part is not None:
                rows[type(part)].append((update.id, *part))
    params: dict[str, Array] = {}
    params.update(JOBS.arrays([*map(attrgetter(*FENCE), updates)]))
    params.update(INSTANCES.arrays(instances))
    params.update(BRANCHES.arrays(branches))
    params.update(FINISHES.arrays(finishes))
    for kind, group in BY_JOB.items():
        params.update(group.arrays(rows[kind]))
    return params
