"""Delete the objects of deleted rows from the payload store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pgflow.core.values.reference import belongs_to
from pgflow.core.values.sanitize import error_message, sanitize_line
from pgflow.database.statement import Statement
from pgflow.logs import Logger
from pgflow.payloads.store import PayloadStore
from pgflow.store import payload
from pgflow.store.payload import StalePayload
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["DeletePayloads"]

log = Logger("pgflow.worker")

INTERVAL_SECONDS = 60.0


class DeletePayloads(SweepChore[list[StalePayload]]):
    """Reads references of deleted rows with a sweep, deletes their objects in a thread, and the rows with a later one.

    Without a payload store it is never due.
    """

    name = "delete payloads"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._next_at = 0.0
        self._deleted: list[int] = []
        self._deleting: asyncio.Future[None] | None = None

    def is_due(self, turn: Turn) -> bool:
        """Whether a sweep takes place, the interval has passed, and no deletion is under way."""
        is_idle = self._deleting is None or self._deleting.done()
        return self.state.payload_store is not None and is_idle and super().is_due(turn) and turn.now >= self._next_at

    def statement(self, turn: Turn) -> Statement[list[StalePayload]]:
        """Return the statement to send."""
        return payload.stale(self.state.schema, self._deleted)

    def on_answer(self, answer: list[StalePayload], turn: Turn) -> None:
        """Delete the objects; once that is done, the next sweep deletes the rows."""
        self._deleted = []
        self._next_at = turn.now + INTERVAL_SECONDS
        if answer and self.state.payload_store is not None:
            deleting = asyncio.get_running_loop().run_in_executor(None, _delete, self.state.payload_store, answer)
            self._deleting = asyncio.ensure_future(self._finish(deleting, [each.id for each in answer]))

    async def _finish(self, deleting: asyncio.Future[bool], ids: list[int]) -> None:
        if await deleting:
            self._deleted = ids
            self._next_at = 0.0


def _delete(store: PayloadStore, stale: Sequence[StalePayload]) -> bool:
    """Delete objects; not those of a reference that was made for another place, which its row may still need."""
    references = [each.reference for each in stale if each.reference and belongs_to(each.reference, each.location)]
    try:
        store.delete([each.key for each in references])
    except Exception as error:
        log.warning(
            "%s cannot delete objects of deleted rows, which is tried again: %s",
            type(store).__name__,
            sanitize_line(error_message(error)),
        )
        return False
    return True
