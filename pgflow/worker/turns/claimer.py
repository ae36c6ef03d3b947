"""Settle and claim in one round trip and one commit, over and over, through whatever the database is going through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from typing import Any, TypeVar

import psycopg

from pgflow.core.values.sanitize import sanitize_line
from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.db_errors import is_contention, is_data_error, is_row_error
from pgflow.database.migration_files import migrations
from pgflow.database.sqlstate import primary_message
from pgflow.database.statement import Statement, arun, arun_all
from pgflow.database.transaction_status import is_idle
from pgflow.errors import PgflowError, RowSecurityError, SchemaError, SequenceError
from pgflow.jitter import uniform
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.store import doctor, job, migration, request, signal, worker
from pgflow.worker import points, report
from pgflow.worker.claimed_job import ClaimedJob
from pgflow.worker.decide import Decision
from pgflow.worker.held_jobs import RejectedJob
from pgflow.worker.outcome import AttemptFailed, Snoozed
from pgflow.worker.settler import Settler
from pgflow.worker.upkeep import EARLY_SECONDS, Maintenance
from pgflow.worker.watermark import Watermark

__all__ = ["Claimer"]

T = TypeVar("T")

log = Logger("pgflow.worker")

HELD_UP_SECONDS = 0.01  # before tokens that somebody else has locked are sent again
CONFLICT_SECONDS = 0.03  # until a token that met a second conflict is due: see job/settle
STALE_SECONDS = 2.0  # for which a claimed token may wait in memory for a slot
LONGEST_PAUSE_SECONDS = 5.0
UNMENDED = timedelta(minutes=1)  # until a token is looked at again whose instance cannot be changed
REPORT_SECONDS = 60.0  # between two log lines about the same fault of the database
CONTENTION_LIMIT = 3  # failures of a batch by locks or deadlocks, after which it is settled one by one
FORGOTTEN = timedelta(days=1)  # after which idempotency keys go, and workers whose lease has ended

# The schema is not what it was: it is looked at, and if it is one that this code cannot work on, that is the end.
Estranged = (SchemaError, psycopg.ProgrammingError)
# Of this connection only: the next one finds the server that took this one's place, or prepares its statements anew.
Stale = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.DuplicatePreparedStatement,
    psycopg.errors.FeatureNotSupported,  # "cached plan must not change result type"
)
Outage = (psycopg.Error, PgflowError, OSError)  # whatever else is wrong: wait, and try again
Answered = (psycopg.Error, PgflowError)
UPKEEP = frozenset(
    {"evict", "rescue", "revive", "breaking", "forget", "forget_requests", "reconcile", "stage", "send_due", "look"}
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What goes out in one round trip: statements by name, and what their answers are about."""

    statements: Mapping[str, Statement[Any]]
    has_upkeep: bool
    decisions: list[Decision]
    refused: list[RejectedJob]
    rooms: Mapping[str, int]
    floors: Mapping[str, job.QueuePosition]
    asked: Mapping[int, ClaimedJob]


class Claimer:
    """The worker's one connection for tokens. `turn` does whatever is due, in one round trip where it can.

    `register` gives the worker an identity and its heart a lease; `may_claim` says whether it may take more.
    """

    def __init__(
        self,
        dsn: str,
        settler: Settler,
        *,
        pooler: bool,
        poll: timedelta,
        sweep: timedelta,
        register: Callable[[AsyncConnection], Any],
        may_claim: Callable[[], bool],
    ) -> None:
        self.conn: AsyncConnection | None = None
        self.is_hungry = True
        self.is_lost = False
        self.nonce = ""
        self.must_check = False
        self.found_nothing = False
        self.overtaken_by: migration.Applied | None = None  # a migration that breaks our code, or will
        self.fault: str | None = None  # what in the database keeps results from being recorded
        self._dsn = dsn
        self._pooler = pooler
        self._settler = settler
        self._poll = poll.total_seconds()
        self._maintenance = Maintenance(sweep)
        self._watermark = Watermark()
        self._register = register
        self._may_claim = may_claim
        self._next_poll = 0.0
        self._dry_at = inf  # when to claim below a floor, whether or not anybody wakes us
        self._failures = 0
        self._unknown: list[Decision] = []
        self._is_in_doubt = False
        self._has_upkeep = False
        self._had_suspect = False
        self._is_plan_doubted = False
        self._to_wake: set[str] = set()
        self._refusals = 0  # of deferred outcomes, in a row
        self._retry_deferred_at = 0.0
        self._reported: dict[str, float] = {}  # when each fault was logged

    @property
    def has_work(self) -> bool:
        """Whether outcomes wait to be settled, or to be settled again."""
        return self._has_outcomes or self._settler.has_deferred

    @property
    def _has_outcomes(self) -> bool:
        return self._settler.has_outcomes or bool(self._unknown)

    @property
    def is_cut_off(self) -> bool:
        """Whether the last turn did not get through to the database."""
        return self._failures > 0

    def hasten(self) -> None:
        """Sweep with the next turn."""
        self._maintenance.hasten()

    def pause(self) -> float:
        """Seconds until something is due; 0 when something is to be done now."""
        if self._settler.is_held_up:
            return HELD_UP_SECONDS
        if self._has_outcomes or self.is_lost or self.must_check:
            return 0.0
        now = time.monotonic()
        if self._settler.has_deferred:
            return min(self._pause(now), max(0.0, self._retry_deferred_at - now))
        return self._pause(now)

    def _pause(self, now: float) -> float:
        if not (self._may_claim() and self._settler.held_jobs.rooms(now)):
            return max(0.0, self._maintenance.next_at - now)
        if self.is_hungry:
            return 0.0
        return max(0.0, min(self._next_poll, self._dry_at, self._maintenance.next_at) - now)

    async def turn(self) -> None:
        """Do what is due. An outage is waited out: what was to be settled is settled when the database is back."""
        if self.is_lost:
            self._forget_all()
        try:
            if self.conn is None or self.conn.closed:
                self.conn = await aconnect(self._dsn, role="worker", pooler=self._pooler)
                self.is_hungry = True
                if self._settler.worker and not await self._ask(self.conn, self._attach(self.conn)):
                    self._forget_all()
            if not self._settler.worker:
                await self._register(self.conn)
                self.is_lost = False
            await self._exchange(self.conn)
            self._failures = 0
            await self._settle_deferred(self.conn)
            if not self._settler.has_deferred and not self._maintenance.is_split:
                self.fault = None
        except Outage as error:
            if isinstance(error, Estranged) and self.conn is not None and not self.conn.closed:
                try:
                    await migrate.acheck(self.conn, self._settler.schema)
                except RowSecurityError as hidden:  # may be switched off again: wait for that
                    error = hidden
            await self._hold_out(error)
        held_jobs, had_suspect = self._settler.held_jobs, self._had_suspect
        self._had_suspect = held_jobs.has_quarantined
        self.is_hungry |= had_suspect and not self._had_suspect  # it kept the worker from claiming
        held_jobs.run_waiting()

    def _attach(self, conn: AsyncConnection) -> Statement[bool]:
        return worker.attach(self._settler.schema, self._settler.worker, self.nonce, conn.info.backend_pid)

    def _forget_all(self) -> None:
        """The lease has ended: what was held is somebody else's."""
        self._unknown = []
        self._settler.abandon()
        self._settler.worker = 0

    async def _exchange(self, conn: AsyncConnection) -> None:
        now = time.monotonic()
        turn = self._plan(now)
        if self._maintenance.is_split and turn.has_upkeep:
            turn = await self._split(conn, turn, now)
        self._has_upkeep = turn.has_upkeep
        if turn.statements:
            try:
                answers = await self._send(conn, turn.statements)
            except Answered as error:
                if not turn.decisions or not self._may_be_of_one(error):
                    raise
                self.is_hungry = True
                await self._settle_singly(conn, error)
                return
            self._unknown = []
            self._take_over(turn, answers, now)
            points.reached("claimer.adopted")
        if self._is_in_doubt:  # what was committed without our knowing is ours in the database only
            settler = self._settler
            await self._ask(conn, job.reconcile(settler.schema, settler.worker, settler.held_jobs.tokens))
            self._is_in_doubt = False
        await self._wake_others(conn, now)

    def _plan(self, now: float) -> Turn:
        """Put together what to send: what was decided, what upkeep is due, and a claim if there is room."""
        settler = self._settler
        schema, me, tokens = settler.schema, settler.worker, settler.held_jobs.tokens
        statements: dict[str, Statement[Any]] = {}
        if self._maintenance.is_sweep_due(now):
            settler.release(settler.held_jobs.stale(now - STALE_SECONDS))
            statements["evict"] = worker.evict(schema)
            statements["rescue"] = job.rescue(schema)
            statements["revive"] = job.repair_orphaned(schema, self._maintenance.seen_run)
            statements["breaking"] = migration.breaking(schema, len(migrations()))
            if self._maintenance.is_forget_due(now):
                statements["forget"] = worker.forget(schema, FORGOTTEN)
                statements["forget_requests"] = request.forget(schema, FORGOTTEN)
            if not self._unknown:
                statements["reconcile"] = job.reconcile(schema, me, tokens)
            self.must_check |= bool(tokens)  # a cancel is heard of at once, but only by those who listen
        decisions = self._unknown = self._unknown or settler.take()
        refused = settler.held_jobs.take_rejected()
        if decisions or refused:
            statements["settle"] = settler.statement(decisions, refused)
        if self._maintenance.is_stage_due(now, decisions):
            statements["stage"] = job.stage(schema)
            statements["send_due"] = signal.send_due(schema)
        early = EARLY_SECONDS if statements else 0.0  # goes along, so that an idle worker wakes once
        is_polling = now >= self._next_poll - early
        is_due = now >= self._dry_at or self._maintenance.is_due_known or (is_polling and self._maintenance.rests(now))
        rooms = settler.held_jobs.rooms(now) if self._may_claim() and not self._is_in_doubt else {}
        floors = self._watermark.floors(now)
        if rooms and (self.is_hungry or decisions or is_due):
            if self._is_plan_doubted and not self._pooler:
                statements = {"replan": job.replan(schema), **statements}
            self._is_plan_doubted = False
            statements["claim"] = job.claim(schema, me, rooms, floors)
            self.is_hungry = False  # whoever wakes us from here on does so for the next claim
        if "stage" not in statements and self._maintenance.is_look_due(
            now + early, is_wanted=is_polling and "claim" not in statements
        ):
            statements["look"] = job.peek(schema, rooms)
        asked: dict[int, ClaimedJob] = {}
        if self.must_check:
            self.must_check, asked = False, dict(tokens)
            statements["lost"] = job.revoked(schema, me, {token.id: token.attempt for token in asked.values()})
        has_upkeep = not statements.keys() <= {"replan", "settle", "claim", "lost"}
        return Turn(statements, has_upkeep, decisions, refused, rooms, floors, asked)

    def _take_over(self, turn: Turn, answers: Mapping[str, Any], now: float) -> None:
        """Take in what the statements returned."""
        settler = self._settler
        if "settle" in answers:
            settler.adopt(turn.decisions, answers["settle"])
            settler.adopt_rejected(turn.refused, answers["settle"])
        self._maintenance.learn(now, answers)
        if any(row.status == "conflict" for row in answers.get("settle", ())):
            self._maintenance.expect(now + CONFLICT_SECONDS)
        self.overtaken_by = answers.get("breaking") or self.overtaken_by
        if evicted := answers.get("evict"):
            log.warning("transactions that workers without a lease had left open, and that are ended: %d", evicted)
        if "rescue" in answers:
            settler.stats.rescued += answers["rescue"].jobs
            report.rescued(settler.worker, answers["rescue"])
        if "revive" in answers and (revived := answers["revive"].jobs):
            log.warning("active instances that had no token left, and are taken up again: %d", revived)
        for token_id in answers.get("lost", ()):
            settler.held_jobs.give_up(turn.asked[token_id])
        made_ready = [answers[name] for name in ("stage", "send_due", "rescue", "revive") if name in answers]
        for each in made_ready:
            self.wake(set(each.queues) - settler.held_jobs.buffers.keys())  # what is not served here
        if "claim" in answers:
            self._claimed(answers["claim"], turn, now)
        elif any(each.queues for each in made_ready):
            self.is_hungry = True
        if "claim" in answers or "look" in answers:
            self._next_poll = now + self._poll * uniform(0.9, 1.1)
        self.is_hungry |= "look" in answers and answers["look"].ready

    def _claimed(self, rows: list[job.ClaimedRow], turn: Turn, now: float) -> None:
        rooms = turn.rooms
        self._settler.stats.claimed += len(rows)
        self._settler.held_jobs.take_in(rows)
        taken = dict.fromkeys(rooms, 0)
        for row in rows:
            taken[row.queue] += 1
        # Where all that was asked for came, there may be more.
        self.is_hungry |= any(taken[queue] >= room for queue, room in rooms.items())
        self.found_nothing = not rows
        # A slow claim has to do with what is dead, or its plan was made when there was next to nothing.
        self._is_plan_doubted = self._watermark.learn(time.monotonic(), rooms, turn.floors, rows)
        self._dry_at = self._watermark.look_at(rooms)

    async def _ask(self, conn: AsyncConnection, statement: Statement[T]) -> T:
        """Run one statement, in a round trip of its own."""
        self._settler.stats.round_trips += 1
        return await arun(conn, statement)

    async def _send(self, conn: AsyncConnection, statements: Mapping[str, Statement[Any]]) -> dict[str, Any]:
        points.reached("claimer.sending")
        if len(statements) == 1:
            ((name, statement),) = statements.items()
            answers = {name: await self._ask(conn, statement)}
        else:
            self._settler.stats.round_trips += 1
            answers = dict(zip(statements, await arun_all(conn, statements.values()), strict=True))
        points.reached("claimer.sent")
        return answers

    def _may_be_of_one(self, error: Exception) -> bool:
        """Whether a batch may have been refused for one of its instances, so that the others can be settled."""
        if is_data_error(error):
            return True
        if self._has_upkeep:  # it may be the culprit: first without it
            return False
        return is_row_error(error) or (is_contention(error) and self._failures >= CONTENTION_LIMIT)

    async def _settle_singly(self, conn: AsyncConnection, error: Exception) -> None:
        """Settle the decisions of a refused batch one by one, so that one instance cannot hold up the others.

        A step whose result can never be stored fails. A result that the database refuses through no fault of the step
        is kept, and settled when the database accepts it.
        """
        log.warning("a batch of %d cannot be settled (%s): settling one by one", len(self._unknown), _said(error))
        while self._unknown:
            decision = self._unknown[0]
            try:
                await self._settle_alone(conn, decision)
            except Answered as reason:
                if not (is_row_error(reason) or is_contention(reason)):
                    raise
                await self._defer(conn, decision, reason)
            del self._unknown[0]

    async def _settle_alone(self, conn: AsyncConnection, decision: Decision) -> None:
        """Settle one decision; if its values cannot be stored, let that step fail. Raises all other errors."""
        settler = self._settler
        try:
            rows = await self._ask(conn, settler.statement([decision]))
        except Answered as reason:
            if not is_data_error(reason):
                raise
            text = f"what the step came to cannot be stored: {_said(reason)}"
            kind = type(reason).__name__
            decision = settler.decide([AttemptFailed(each.job, text, kind, retry=False) for each in decision.outcomes])
            try:
                rows = await self._ask(conn, settler.statement([decision]))
            except Answered as refusal:
                if not is_data_error(refusal):
                    raise
                decision = self._put_off(decision, refusal)
                rows = await self._ask(conn, settler.statement([decision]))
        settler.adopt([decision], rows)

    async def _defer(self, conn: AsyncConnection, decision: Decision, error: Exception) -> None:
        """Keep a decision that the database refuses, and report that."""
        self._settler.defer(decision)
        self._refusals += 1
        pause = min(LONGEST_PAUSE_SECONDS, 0.05 * 2 ** min(self._refusals, 10)) * uniform(0.5, 1.0)
        self._retry_deferred_at = time.monotonic() + pause
        await self.report(error, "a result, which is kept until that is repaired", conn)

    async def _settle_deferred(self, conn: AsyncConnection) -> None:
        """Settle what was deferred, oldest first, until one is refused again: that one goes to the end.

        So the others have their turn, and a database that refuses them all is asked once in a pause.
        """
        if time.monotonic() < self._retry_deferred_at:
            return
        while (decision := self._settler.take_deferred()) is not None:
            try:
                await self._settle_alone(conn, decision)
            except Answered as error:
                if not is_idle(conn):
                    self._settler.defer(decision)
                    raise
                await self._defer(conn, decision, error)
                return
            self._refusals = 0
            self.is_hungry = True

    async def report(self, error: Exception, what: str, conn: AsyncConnection | None = None) -> None:
        """Note that the database refuses `what` through a fault of its own; log it once in `REPORT_SECONDS`.

        On `conn`, sequences are examined where one of them is at fault.
        """
        self.fault = f"{what}: {_said(error)}"
        now = time.monotonic()
        self._reported = {said: at for said, at in self._reported.items() if now - at < REPORT_SECONDS}
        if self.fault in self._reported:
            return
        self._reported[self.fault] = now
        advice = f". {error.hint}" if isinstance(error, PgflowError) and error.hint else ""
        log.error("worker %d: the database refuses %s%s", self._settler.worker, self.fault, sanitize_line(advice))
        if isinstance(error, SequenceError) and conn is not None:
            try:
                found = await self._ask(conn, doctor.sequences(self._settler.schema))
            except Answered as failure:
                log.warning("worker %d: cannot examine sequences: %s", self._settler.worker, _said(failure))
                return
            for each in found:
                if each.fault is not None:
                    log.error("%s. Run: %s", each.fault, each.repair)

    async def _split(self, conn: AsyncConnection, turn: Turn, now: float) -> Turn:
        """Run each statement of upkeep by itself, so that a refused one holds up nothing else; return the rest."""
        answers: dict[str, Any] = {}
        is_split = False
        for name in [name for name in turn.statements if name in UPKEEP]:
            try:
                answers[name] = await self._ask(conn, turn.statements[name])
            except Answered as error:
                if not is_idle(conn):
                    raise
                is_split = True
                await self.report(error, f"upkeep ({name})", conn)
        self._maintenance.is_split = is_split
        if not answers:
            self._maintenance.put_off(now)
        self._take_over(replace(turn, statements={}, decisions=[], refused=[]), answers, now)
        rest = {name: each for name, each in turn.statements.items() if name not in UPKEEP}
        return replace(turn, statements=rest, has_upkeep=False)

    def _put_off(self, decision: Decision, error: Exception) -> Decision:
        """Not even its failure can be stored, as long as nobody mends what its instance holds: try again later."""
        log.error(
            "%s cannot be changed: %s; its steps wait for somebody to mend it", decision.instance.id, _said(error)
        )
        return self._settler.decide([Snoozed(outcome.job, UNMENDED) for outcome in decision.outcomes])

    async def _hold_out(self, error: Exception) -> None:
        """The database does not answer, or refuses for now: keep what is to be settled and try again soon."""
        self._is_in_doubt = self.is_hungry = True
        if self._has_upkeep:
            # What nobody waits for must not hold up what somebody does: at once, and without it.
            self._has_upkeep = False
            self._maintenance.put_off(time.monotonic())
            if self.conn is not None and is_idle(self.conn):
                self._maintenance.is_split = True
                log.warning("worker %d: %s; trying again without upkeep", self._settler.worker, str(error).strip())
                return
        self._failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, 0.05 * 2 ** min(self._failures, 10)) * uniform(0.5, 1.0)
        log.warning("worker %d: %s; trying again in %.1f s", self._settler.worker, _said(error), pause)
        is_usable = self.conn is not None and is_idle(self.conn)
        if isinstance(error, Answered) and is_usable and not is_contention(error):
            await self.report(error, "the statements of this worker", self.conn)
        if self.conn is not None and (not is_idle(self.conn) or isinstance(error, Stale)):
            await self.conn.close()
        await asyncio.sleep(pause)

    # -- waking others, after the commit that made work for them

    def wake(self, queues: set[str]) -> None:
        """Note queues in which there is work that may be for others."""
        self._to_wake |= queues

    async def _wake_others(self, conn: AsyncConnection, now: float) -> None:
        if not self._to_wake:
            return
        queues, self._to_wake = self._to_wake, set()
        rooms = self._settler.held_jobs.rooms(now) if self._may_claim() else {}
        if any(queue in rooms for queue in queues):
            self.is_hungry = True
        if wanted := {queue for queue in queues if queue not in rooms}:
            await self._ask(conn, worker.wake(self._settler.schema, wanted))


def _said(error: Exception) -> str:
    """What an error says, in one line; of the database's without the values that it was given."""
    return sanitize_line(primary_message(error) if isinstance(error, psycopg.Error) else str(error))
