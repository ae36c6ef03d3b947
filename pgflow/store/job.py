"""Claim tokens, settle what they came to, and keep them moving: the statements of the hot path."""

from __future__ import annotations

from builtins import list as Builtin
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

from psycopg.types.numeric import Int8

from pgflow.core.engine.state import Status
from pgflow.core.models.job import Job, JobFilters
from pgflow.core.values.payload import decode
from pgflow.database import files
from pgflow.database.arrays import Array, Bigints, Booleans, Doubles, Integers, Smallints, Texts
from pgflow.database.statement import Row, Statement

__all__ = [
    "QUEUE_START",
    "Branch",
    "Change",
    "ClaimedRow",
    "PeekResult",
    "QueuePosition",
    "RepairResult",
    "RescueResult",
    "SettleResult",
    "StageResult",
    "Verdict",
    "claim",
    "drained",
    "list",
    "peek",
    "reconcile",
    "repair_orphaned",
    "replan",
    "rescue",
    "revoked",
    "settle",
    "stage",
]


class ClaimedRow(NamedTuple):
    """A token that this worker now holds.

    What is known of its instance comes with the first token of a run, else None. `waited` is how many seconds ago it
    parked, `age` how many seconds ago the instance was created, `moment` when it was to run, in seconds of the epoch,
    and `took` how many seconds the server has spent on the claim.
    """

    id: int
    kind: str
    run: int
    step: str
    config: str | None
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    solo: bool
    awaits: str | None
    errors: str | None
    business_id: str | None
    workflow: str | None
    version: int | None
    status: Status | None
    revision: int | None
    input: str | None
    metadata: str | None
    results: str | None
    signals: str | None
    parked: Sequence[str] | None
    waited: float | None
    age: float | None
    moment: float
    took: float


@dataclass(frozen=True, order=True, slots=True)
class QueuePosition:
    """A place in a queue's order: a claim that is given it takes what comes after. By default it is before all."""

    priority: int = -32768
    moment: float = -inf
    id: int = 0


@dataclass(slots=True)
class Verdict:
    """What one token came to: a row of the array `d` of sql/queries/job/settle.sql.

    `op` is move, end, park, retry, snooze, release or fail. `guarded`: it holds only together with the `Change` of
    its run.
    """

    id: int
    run: int
    attempt: int
    step: str
    kind: str
    op: str
    guarded: bool = False
    event: str | None = None
    targets: str | None = None
    output: str | None = None
    metadata: str | None = None
    errors: str | None = None
    seconds: float = 0.0
    stored: bool = False
    signal: int | None = None
    next_step: str | None = None
    next_config: str | None = None
    next_queue: str | None = None
    next_priority: int | None = None
    next_max: int | None = None
    next_solo: bool | None = None
    keep: bool = False
    delay: float | None = None
    backoff: str | None = None
    base: float | None = None
    cap: float | None = None
    jitter: float | None = None
    awaits: str | None = None
    orchestration: str | None = None  # the queue of a token that waits or decides; None: it stays where it is


@dataclass(slots=True)
class Change:
    """How an instance changes, decided on its `revision` (None: whatever it is): a row of the array `g`."""

    run: int
    revision: int | None
    status: Status | None = None
    metadata: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Branch:
    """A token that a fan-out adds, or the retry of an instance: a row of the array `f`."""

    run: int
    step: str
    config: str | None
    queue: str
    priority: int
    max: int
    keep: bool = False
    kind: str = "execute"


class SettleResult(NamedTuple):
    """What became of a verdict (`what` = "token"), or a token that a fan-out added ("branch")."""

    what: str
    id: int
    run: int
    step: str
    status: str
    kept: bool


@dataclass(frozen=True, slots=True)
class StageResult:
    """How many tokens became ready in which queues, and in how many seconds the next one is due (None: none is)."""

    queues: Sequence[str]
    tokens: int
    next_due: float | None


@dataclass(frozen=True, slots=True)
class PeekResult:
    """Whether a token is ready, and in how many seconds something is due (0: it is by now, None: nothing is)."""

    ready: bool
    next_due: float | None


@dataclass(frozen=True, slots=True)
class RescueResult:
    """How many tokens were given back to which queues; `next_expiry` is in how many seconds a lease could end next."""

    queues: Sequence[str]
    tokens: int
    next_expiry: float | None = None


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How many instances got a token again, in which queues; `last` is the page's last run (None: the last page)."""

    queues: Sequence[str]
    tokens: int
    last: int | None


QUEUE_START = QueuePosition()
NO_WATERMARKS: Mapping[str, QueuePosition] = {}

# What the columns of a settle hold, where it is not text.
KINDS: Mapping[str, type[Array]] = {
    **dict.fromkeys(("id", "run", "signal"), Bigints),
    **dict.fromkeys(("attempt", "revision"), Integers),
    **dict.fromkeys(("next_priority", "next_max", "priority", "max"), Smallints),
    **dict.fromkeys(("seconds", "delay", "base", "cap", "jitter"), Doubles),
    **dict.fromkeys(("guarded", "stored", "next_solo", "keep"), Booleans),
}


def _columns(rows: Sequence[Any], kind: type, prefix: str = "") -> dict[str, Array]:
    return {
        prefix + field.name: KINDS.get(field.name, Texts)(map(attrgetter(field.name), rows)) for field in fields(kind)
    }


def claim(
    schema: str, worker: int, rooms: Mapping[str, int], floors: Mapping[str, QueuePosition] = NO_WATERMARKS
) -> Statement[Builtin[ClaimedRow]]:
    """Take up to `rooms[queue]` ready tokens of each queue, the most urgent first, and one that has to run alone.

    Of a queue that has a floor only those that come after it.
    """
    after = [floors.get(queue, QUEUE_START) for queue in rooms]
    params = {
        "worker": worker,
        "queues": Texts(rooms),
        "rooms": Integers(rooms.values()),
        "priorities": Smallints(floor.priority for floor in after),
        "moments": Doubles(floor.moment for floor in after),
        "ids": Bigints(floor.id for floor in after),
    }
    return Statement("job/claim", files.load("queries/job/claim.sql", schema), params, _claimed, prepare=True)


def _claimed(rows: Sequence[Row]) -> Builtin[ClaimedRow]:
    return [*map(ClaimedRow._make, rows)]


def settle(
    schema: str,
    worker: int,
    verdicts: Sequence[Verdict],
    changes: Sequence[Change] = (),
    branches: Sequence[Branch] = (),
) -> Statement[Builtin[SettleResult]]:
    """Record a batch of outcomes in one statement; see the file for what each status means."""
    params = {
        "worker": worker,
        **_columns(verdicts, Verdict),
        **_columns(changes, Change, "g_"),
        **_columns(branches, Branch, "f_"),
    }
    return Statement("job/settle", files.load("queries/job/settle.sql", schema), params, _settled, prepare=True)


def _settled(rows: Sequence[Row]) -> Builtin[SettleResult]:
    return [*map(SettleResult._make, rows)]


def replan(schema: str) -> Statement[None]:
    """Forget the session's plans, so that each is made for the tables as they are by now: at once, not when analyzed.

    A plan outlives what it was made on. The statements leave it but the choice between indexes (sql/README.md), and
    while a table is empty they all look alike.
    """
    return Statement("job/replan", files.load("queries/job/replan.sql", schema), {}, lambda rows: None)


def peek(schema: str, queues: Iterable[str]) -> Statement[PeekResult]:
    """See whether there is anything to do for a worker that serves these queues."""
    query = files.load("queries/job/peek.sql", schema)
    return Statement("job/peek", query, {"queues": Texts(queues)}, lambda rows: PeekResult(*rows[0]), prepare=True)


def stage(schema: str, limit: int = 1000) -> Statement[StageResult]:
    """Make due tokens ready, the longest due first, up to `limit` of them."""
    return Statement(
        "job/stage",
        files.load("queries/job/stage.sql", schema),
        {"limit": limit},
        lambda rows: StageResult(*rows[0]),
        prepare=True,
    )


def rescue(schema: str, limit: int = 1000) -> Statement[RescueResult]:
    """Free the tokens of workers whose lease has ended, up to `limit` of them."""
    return Statement(
        "job/rescue",
        files.load("queries/job/rescue.sql", schema),
        {"limit": limit},
        lambda rows: RescueResult(*rows[0]),
    )


def repair_orphaned(schema: str, after: int = 0, limit: int = 1000) -> Statement[RepairResult]:
    """Give a token to each active instance that has none left, among `limit` active ones after run `after`."""
    params = {"after": Int8(after), "limit": limit}
    return Statement(
        "job/repair_orphaned",
        files.load("queries/job/repair_orphaned.sql", schema),
        params,
        lambda rows: RepairResult(*rows[0]),
    )


def reconcile(schema: str, worker: int, held: Iterable[int]) -> Statement[RescueResult]:
    """Give back the tokens that `worker` holds in the database but not in memory (`held`)."""
    params = {"worker": worker, "held": Bigints(held)}
    return Statement(
        "job/reconcile", files.load("queries/job/reconcile.sql", schema), params, lambda rows: RescueResult(*rows[0])
    )


def revoked(schema: str, worker: int, held: Mapping[int, int]) -> Statement[Builtin[int]]:
    """Return those of the tokens in `held` (id: attempt) that are no longer this worker's."""
    params = {
        "worker": worker,
        "ids": Bigints(held),
        "attempts": Integers(held.values()),
    }
    return Statement(
        "job/revoked", files.load("queries/job/revoked.sql", schema), params, lambda rows: [row[0] for row in rows]
    )


def drained(schema: str, queues: Iterable[str]) -> Statement[bool]:
    """Return whether nothing is left in these queues that will go on by itself: no token but waits for a signal."""
    params = {"queues": Builtin(queues)}
    return Statement(
        "job/drained", files.load("queries/job/drained.sql", schema), params, lambda rows: bool(rows[0][0])
    )


def list(  # noqa: A001 -- path is name: job/list.sql
    schema: str, filters: JobFilters, *, workflow: str | None = None, version: int | None = None
) -> Statement[Builtin[Job]]:
    """Read a page of live jobs, the oldest first; pass the last one's id as `after` for the next page."""
    params = {
        "workflow": workflow,
        "version": version,
        "queue": filters.queue,
        "state": filters.state,
        "after": filters.after,
        "tags": Builtin(filters.tags),
        "meta": filters.meta,
        "limit": filters.limit,
    }
    return Statement("job/list", files.load("queries/job/list.sql", schema), params, _jobs)


def _jobs(rows: Sequence[Row]) -> Builtin[Job]:
    return [_job(*row) for row in rows]


def _job(*row: Any) -> Job:
    *known, tags, meta, errors = row
    values: Sequence[Any] = [*known, tuple(tags), decode(meta), tuple(decode(errors))]
    return Job(*values)
