"""Settle decisions one by one where the database refuses a batch, and keep those that it refuses for now."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from pgflow.database.connect import AsyncConnection
from pgflow.database.db_errors import is_contention, is_data_error, is_row_error
from pgflow.database.statement import Statement
from pgflow.database.transaction_status import is_idle
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.worker.decide_task import AnyDecision
from pgflow.worker.outcome import AttemptFailed, Snoozed
from pgflow.worker.settler import Settler
from pgflow.worker.turns.faults import REFUSAL, FaultLog, error_text

__all__ = ["SingleSettler"]

log = Logger("pgflow.worker")

MAX_PAUSE_SECONDS = 5.0
UNWRITABLE_RETRY = timedelta(minutes=1)  # until a job is claimed again whose instance cannot be updated


class SingleSettler:
    """So one instance whose rows are refused cannot hold up the others.

    A step whose result can never be stored fails. A result that is refused through no fault of its step is deferred:
    its job stays held, and is settled once the database accepts it. `ask` runs a statement in its own round trip.
    """

    def __init__(
        self,
        settler: Settler,
        faults: FaultLog,
        ask: Callable[[AsyncConnection, Statement[Any]], Awaitable[Any]],
    ) -> None:
        self.retry_at = 0.0  # when to try the deferred decisions again, in monotonic seconds
        self._settler = settler
        self._faults = faults
        self._ask = ask
        self._refusals = 0  # of deferred decisions, in a row

    async def settle(self, conn: AsyncConnection, decisions: list[AnyDecision]) -> None:
        """Settle a refused batch one by one, and take out of `decisions` what has been settled or deferred.

        Raises what concerns more than one instance; the rest of `decisions` is then to be sent again.
        """
        while decisions:
            try:
                await self._settle(conn, decisions[0])
            except REFUSAL as error:
                if not (is_row_error(error) or is_contention(error)):
                    raise
                await self._defer(conn, decisions[0], error)
            del decisions[0]

    async def settle_deferred(self, conn: AsyncConnection) -> bool:
        """Settle deferred decisions, oldest first, until one is refused again: that one moves to the end.

        So each gets a try, and a database that refuses them all is asked once in a pause. Returns whether one was
        settled.
        """
        if time.monotonic() < self.retry_at:
            return False
        has_settled = False
        while (decision := self._settler.take_deferred()) is not None:
            try:
                await self._settle(conn, decision)
            except REFUSAL as error:
                if not is_idle(conn):
                    self._settler.defer(decision)
                    raise
                await self._defer(conn, decision, error)
                break
            self._refusals = 0
            has_settled = True
        return has_settled

    async def _settle(self, conn: AsyncConnection, decision: AnyDecision) -> None:
        """Settle one decision; if its values can never be stored, let its step fail. Raises all other errors."""
        settler = self._settler
        try:
            rows = await self._ask(conn, settler.statement([decision]))
        except REFUSAL as error:
            if not is_data_error(error):
                raise
            text = f"the result of the step cannot be stored: {error_text(error)}"
            kind = type(error).__name__
            decision = settler.decide(
                [AttemptFailed(each.job, text, kind, retry=False, is_fatal=True) for each in decision.outcomes]
            )
            try:
                rows = await self._ask(conn, settler.statement([decision]))
            except REFUSAL as refusal:
                if not is_data_error(refusal):
                    raise
                decision = self._snooze(decision, refusal)
                rows = await self._ask(conn, settler.statement([decision]))
        settler.adopt([decision], rows)

    def _snooze(self, decision: AnyDecision, error: Exception) -> AnyDecision:
        """Not even the failure can be stored, until an operator repairs the instance's row."""
        log.error("%s cannot be updated: %s; its jobs wait until that is repaired", decision.title, error_text(error))
        return self._settler.decide([Snoozed(outcome.job, UNWRITABLE_RETRY) for outcome in decision.outcomes])

    async def _defer(self, conn: AsyncConnection, decision: AnyDecision, error: Exception) -> None:
        """Keep a decision that the database refuses, and report that."""
        self._settler.defer(decision)
        self._refusals += 1
        pause = min(MAX_PAUSE_SECONDS, 0.05 * 2 ** min(self._refusals, 10)) * uniform(0.5, 1.0)
        self.retry_at = time.monotonic() + pause
        await self._faults.report(error, "a result, which is kept until that is repaired", conn)
