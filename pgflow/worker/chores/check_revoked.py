"""Stop steps whose jobs were taken from this worker, by a cancel or a rescue."""

from __future__ import annotations

from collections.abc import Mapping

from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.worker.chores.chore import Chore
from pgflow.worker.claimed_task import HeldJob
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["CheckRevoked"]

INTERVAL_SECONDS = 1.0


class CheckRevoked(Chore[list[int]]):
    """Runs when a notification asks for it, and each second for jobs that run longer: notifications may be lost.

    So a sync step sees within about a second that it is cancelled, and quick steps cost nothing.
    """

    name = "check revoked jobs"
    is_upkeep = False

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._asked: Mapping[int, HeldJob] = {}
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether it was asked for, or a job has been held for a second."""
        state = self.state
        if state.should_check_revoked:
            return True
        if turn.now < self._next_at or state.upkeep.is_active(turn.now):
            return False
        self._next_at = turn.now + INTERVAL_SECONDS
        return any(each.since < turn.now - INTERVAL_SECONDS for each in state.held_jobs.jobs.values())

    def statement(self, turn: Turn) -> Statement[list[int]]:
        """Return the statement to send."""
        self.state.should_check_revoked = False
        self._asked = dict(self.state.held_jobs.jobs)
        attempts = {each.id: each.attempt for each in self._asked.values()}
        return job.revoked(self.state.schema, self.state.worker, attempts)

    def on_answer(self, answer: list[int], turn: Turn) -> None:
        """Stop them; a job that has moved on within the same turn is another claim, and stays."""
        for number in answer:
            self.state.held_jobs.give_up(self._asked[number])
