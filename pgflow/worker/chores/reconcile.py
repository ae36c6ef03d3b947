"""Give back the jobs that this worker holds in the database but not in memory."""

from __future__ import annotations

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.store.job import RescueResult
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.turn import Turn

__all__ = ["Reconcile"]


class Reconcile(SweepChore[RescueResult]):
    """Repairs a claim whose answer was lost.

    Not while a settle is unconfirmed: the jobs that it moved or added are held in the database, and known here only
    once it is sent again.
    """

    name = "reconcile"

    def is_due(self, turn: Turn) -> bool:
        """Whether the worker sweeps, and knows what it has settled."""
        return super().is_due(turn) and not turn.is_unconfirmed

    def statement(self, turn: Turn) -> Statement[RescueResult]:
        """Return the statement to send."""
        return job.reconcile(self.state.schema, self.state.worker, self.state.held_jobs.jobs)
