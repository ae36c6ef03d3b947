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


class CheckRevoked(Chore[list[int]]):
    """Runs when a notification asks for it, and with each sweep: notifications may be lost."""

    name = "check revoked jobs"
    is_upkeep = False

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._asked: Mapping[int, HeldJob] = {}

    def is_due(self, turn: Turn) -> bool:
        """Whether it was asked for, or jobs are held during a sweep."""
        state = self.state
        return state.should_check_revoked or (
            bool(state.held_jobs.jobs)
            and state.schedule.is_sweep_due(turn.now)
            and not state.upkeep.is_active(turn.now)
        )

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
