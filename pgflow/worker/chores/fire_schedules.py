"""Start the workflows whose schedules are due."""

from __future__ import annotations

import time
from typing import Any

from pgflow.core.definition.timing import Cron, check_expression, check_zone
from pgflow.core.engine.firing import decide
from pgflow.core.values.sanitize import error_message, sanitize_line, sanitize_text
from pgflow.database.statement import Statement
from pgflow.errors import DecryptionUnavailable, InvalidValue
from pgflow.logs import Logger
from pgflow.store import schedule
from pgflow.store.notification import CheckCancels
from pgflow.store.schedule import DueResult, DueSchedule, FireResult, ScheduleFiring
from pgflow.worker.chores.chore import Chore
from pgflow.worker.chores.due import is_stage_due
from pgflow.worker.turns.state import WorkerState
from pgflow.worker.turns.turn import Turn

__all__ = ["FireSchedules"]

log = Logger("pgflow.worker")

PASS_OVER_SECONDS = 10.0  # until a schedule is looked at again that cannot be fired here


class FireSchedules(Chore[Any]):
    """Reads the due schedules along with the staging of due jobs, and fires them with the next turn, at once.

    A schedule cannot be fired by one statement, because SQL cannot compute the instant after the one that is due. What
    is written with the second one holds only for the revision that the first one has read: of several workers that
    have decided about a schedule, one writes. A worker that dies in between leaves the schedule due.
    """

    name = "fire schedules"

    def __init__(self, state: WorkerState) -> None:
        super().__init__(state)
        self._firings: list[ScheduleFiring] = []
        self._next_due_at: float | None = None  # when the first of them is due again, in monotonic seconds
        self._passed_over: dict[str, float] = {}  # until when, by name

    def is_due(self, turn: Turn) -> bool:
        """Whether there are firings to send, or a schedule may be due."""
        return bool(self._firings) or is_stage_due(self.state.schedule, turn)

    def statement(self, turn: Turn) -> Statement[Any]:
        """Return the statement to send. Firings are sent once: what fails is read again."""
        if self._firings:
            firings, self._firings = self._firings, []
            return schedule.fire(self.state.schema, firings).then(lambda rows: rows)
        self._passed_over = {name: until for name, until in self._passed_over.items() if until > turn.now}
        return schedule.due(self.state.schema, self.state.targets.scope, tuple(self._passed_over))

    def on_answer(self, answer: DueResult | list[FireResult], turn: Turn) -> None:
        """Decide about the due schedules, or take over the results of firings."""
        if isinstance(answer, DueResult):
            self._decide(answer, turn)
        else:
            self._fired(answer, turn)

    def _decide(self, answer: DueResult, turn: Turn) -> None:
        self.state.schedule.answered(turn.now, answer.next_due)
        moments = []
        for each in answer.schedules:
            try:
                firing = self._firing(each, answer)
            except (DecryptionUnavailable, InvalidValue) as error:
                # Another worker may have the key, or know the time zone.
                self._pass_over(each.spec.name, error_message(error), turn)
                continue
            if firing is None:
                continue
            self._firings.append(firing)
            if firing.next_at is not None:
                moments.append((firing.next_at - answer.now).total_seconds())
        self._next_due_at = time.monotonic() + min(moments) if moments else None
        if self._firings:
            self.state.schedule.expect(turn.now)

    def _firing(self, each: DueSchedule, answer: DueResult) -> ScheduleFiring | None:
        """Return what to do about a schedule, None while its next run waits for the last one to end."""
        spec = each.spec
        if isinstance(spec.timing, Cron):
            check_zone(spec.timing.tz)
            try:
                check_expression(spec.timing.expression)
            except InvalidValue as refusal:  # SQL cannot check it
                return ScheduleFiring(spec.name, each.revision, each.handled, None, error=str(refusal))
        decided = decide(
            spec.timing,
            spec.overlap,
            spec.catch_up,
            handled=each.handled,
            now=answer.now,
            last=each.last,
            queued_until=each.queued_until,
        )
        if decided.handled == each.handled and decided.next_at == each.next_at:
            return None
        starts, error = [], None
        try:
            starts = self.state.targets.starts(spec, decided.starts)
        except DecryptionUnavailable:
            raise
        except Exception as refusal:  # of `version_for`, which is user code, or of an input that cannot be read
            error = sanitize_text(error_message(refusal))
        return ScheduleFiring(
            name=spec.name,
            revision=each.revision,
            handled=decided.handled,
            next_at=decided.next_at,
            starts=starts,
            cancels_last=decided.cancels_last and bool(starts),
            skipped=decided.skipped,
            missed=decided.missed,
            queued_until=decided.queued_until,
            error=error,
        )

    def _fired(self, rows: list[FireResult], turn: Turn) -> None:
        state = self.state
        next_due = None if self._next_due_at is None else max(0.0, self._next_due_at - time.monotonic())
        state.schedule.answered(turn.now, next_due)
        for row in rows:
            if row.status == "unknown":
                self._pass_over(row.name, row.error or "", turn)
            elif row.error is not None:
                log.error("the schedule %s cannot start a run: %s", row.name, sanitize_line(row.error))
            if row.cancelled:
                state.notifications.add(CheckCancels())
                state.should_check_revoked = True
            state.jobs_ready(row.queues, turn)

    def _pass_over(self, name: str, reason: str, turn: Turn) -> None:
        log.warning("the schedule %s is left to another worker: %s", name, sanitize_line(reason))
        self._passed_over[name] = turn.now + PASS_OVER_SECONDS
