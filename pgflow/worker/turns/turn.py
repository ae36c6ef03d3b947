"""The values of one turn: the requests of a round trip, each with what happens to its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from pgflow.database.statement import Statement
from pgflow.store.job import QueuePosition
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.held_jobs import RejectedJob

__all__ = ["Request", "Turn"]


@dataclass(frozen=True, slots=True)
class Request:
    """A statement and the callback for its answer. `upkeep` names a chore that a turn may leave out.

    The callback gets the turn as an argument. If it held the turn, each turn would be a reference cycle, and its whole
    batch would be freed by the garbage collector only: a third of the worker's CPU.
    """

    statement: Statement[Any]
    on_answer: Callable[[Any, Turn], None]
    upkeep: str | None = None


@dataclass(slots=True)
class Turn:
    """One round trip, and one transaction, while it is planned and while its answers are processed.

    `now` is in monotonic seconds. `capacity` is how many jobs may be claimed by queue, `gated` the same for queues with
    a gate, `rooms` for those of them that are asked in this turn. `is_unconfirmed`: the settle of `decisions` was sent
    before, and the connection was lost before its answer. `schedules_jobs`: some of them makes a job due later.
    `is_polling`: it is time to look for work without having been notified.
    """

    now: float
    is_unconfirmed: bool = False
    decisions: list[AnyDecision] = field(default_factory=list)
    schedules_jobs: bool = False
    rejected: list[RejectedJob] = field(default_factory=list)
    capacity: Mapping[str, int] = field(default_factory=dict)
    gated: Mapping[str, int] = field(default_factory=dict)
    rooms: Mapping[str, int] = field(default_factory=dict)
    positions: Mapping[str, QueuePosition] = field(default_factory=dict)
    early: float = 0.0  # seconds by which a poll may come early, because the turn takes place anyway
    is_polling: bool = False
    is_claiming: bool = False
    conflict_due_at: float = inf  # when to fold in results that met a conflict
    requests: list[Request] = field(default_factory=list)

    def add(
        self,
        statement: Statement[Any],
        on_answer: Callable[[Any, Turn], None] = lambda answer, turn: None,
        *,
        upkeep: str | None = None,
    ) -> None:
        """Add a statement to the round trip."""
        self.requests.append(Request(statement, on_answer, upkeep))

    @property
    def has_upkeep(self) -> bool:
        """Whether a statement of upkeep is among the requests."""
        return any(each.upkeep for each in self.requests)

    def take_upkeep(self) -> Sequence[Request]:
        """Take the statements of upkeep out of the round trip."""
        upkeep = [each for each in self.requests if each.upkeep]
        self.requests = [each for each in self.requests if not each.upkeep]
        return upkeep
