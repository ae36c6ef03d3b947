"""Delete the rows of workers that are long gone."""

from __future__ import annotations

from datetime import timedelta

from pgflow.database.statement import Statement
from pgflow.store import worker
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["ForgetWorkers"]

KEEP = timedelta(days=1)
INTERVAL_SECONDS = 600.0


class ForgetWorkers(SweepChore[None]):
    """Goes along with a sweep now and then."""

    name = "forget workers"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether a sweep takes place and the interval has passed."""
        return super().is_due(turn) and turn.now >= self._next_at

    def statement(self, turn: Turn) -> Statement[None]:
        """Return the statement to send."""
        return worker.forget(self.state.schema, KEEP)

    def on_answer(self, answer: None, turn: Turn) -> None:
        """Wait for the interval."""
        self._next_at = turn.now + INTERVAL_SECONDS
