"""A chore: one statement of upkeep, when it is due, and what its answer changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from pgflow.database.statement import Statement
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["Chore"]

T = TypeVar("T")


class Chore(ABC, Generic[T]):
    """One statement that goes along with a turn when it is due.

    Each must be bounded, idempotent and safe while other workers run it at the same time. `name` appears in logs.
    `is_upkeep`: the turn may go without it while the database refuses upkeep.
    """

    name: ClassVar[str]
    is_upkeep: ClassVar[bool] = True

    def __init__(self, state: WorkerState) -> None:
        self.state = state

    @abstractmethod
    def is_due(self, turn: Turn) -> bool:
        """Whether it goes along with this turn."""

    @abstractmethod
    def statement(self, turn: Turn) -> Statement[T]:
        """Return the statement to send."""

    def on_answer(self, answer: T, turn: Turn) -> None:
        """Take over the answer, after the commit."""


class SweepChore(Chore[T]):
    """A chore of the sweep: the periodic look for what dead workers have left behind."""

    def is_due(self, turn: Turn) -> bool:
        """Whether the worker sweeps with this turn."""
        return self.state.schedule.is_sweep_due(turn.now)
