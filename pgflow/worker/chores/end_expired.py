"""End instances that are past their deadline, and those that were not started in time."""

from __future__ import annotations

from collections.abc import Sequence

from pgflow.core.values.sanitize import sanitize_line
from pgflow.database.statement import Statement
from pgflow.logs import Logger
from pgflow.store import instance
from pgflow.store.instance import Expired
from pgflow.store.notification import CheckCancels
from pgflow.worker import report
from pgflow.worker.chores.chore import Chore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["EndExpired"]

log = Logger("pgflow.worker")

INTERVAL_SECONDS = 1.0
LIMIT = 200


class EndExpired(Chore[Sequence[Expired]]):
    """Goes along with a turn once a second; it looks into two nearly empty indexes."""

    name = "end expired instances"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0

    def is_due(self, turn: Turn) -> bool:
        """Whether a second has passed."""
        return turn.now >= self._next_at

    def statement(self, turn: Turn) -> Statement[Sequence[Expired]]:
        """Return the statement to send."""
        self._next_at = turn.now + INTERVAL_SECONDS
        return instance.end_expired(self.state.schema, LIMIT)

    def on_answer(self, answer: Sequence[Expired], turn: Turn) -> None:
        """Stop their steps that run, here and elsewhere; go on at once while there may be more."""
        if not answer:
            return
        for each in answer:
            log.warning("%s %s is %s: %s", each.workflow, each.id, each.status, sanitize_line(each.reason))
            report.expired(each)
        self.state.should_check_revoked = True
        self.state.notifications.add(CheckCancels())
        if len(answer) >= LIMIT:
            self._next_at = turn.now
