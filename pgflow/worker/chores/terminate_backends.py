"""Terminate transactions that workers with an expired lease have left open."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.logs import Logger
from pgflow.store import worker
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.turn import Turn

__all__ = ["TerminateBackends"]

log = Logger("pgflow.worker")


class TerminateBackends(SweepChore[int]):
    """Precedes the rescue, which could not free the rows that they lock."""

    name = "terminate backends"

    def statement(self, turn: Turn) -> Statement[int]:
        """Return the statement to send."""
        return worker.terminate_expired_backends(self.state.schema)

    def on_answer(self, answer: int, turn: Turn) -> None:
        """Log how many there were."""
        if answer:
            log.warning("terminated open transactions of workers whose lease has expired: %d", answer)
