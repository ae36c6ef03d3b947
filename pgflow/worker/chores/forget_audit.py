"""Delete old rows of the audit."""

from __future__ import annotations

from datetime import timedelta

from pgflow.database.statement import Statement
from pgflow.store import audit
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["ForgetAudit"]

KEEP = timedelta(days=365)
INTERVAL_SECONDS = 600.0


class ForgetAudit(SweepChore[bool]):
    """Goes along with a sweep now and then, and with each one while there are more than a statement deletes."""

    name = "forget audit"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether a sweep takes place and the interval has passed."""
        return super().is_due(turn) and turn.now >= self._next_at

    def statement(self, turn: Turn) -> Statement[bool]:
        """Return the statement to send."""
        return audit.forget(self.state.schema, KEEP)

    def on_answer(self, answer: bool, turn: Turn) -> None:
        """Wait for the interval, unless there are more."""
        self._next_at = turn.now + (0.0 if answer else INTERVAL_SECONDS)
