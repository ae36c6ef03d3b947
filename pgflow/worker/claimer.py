"""Settle and claim in one round trip and one commit, over and over, through whatever the database is going through."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psycopg

from pgflow.errors import Unreachable
from pgflow.store import job, signal, worker
from pgflow.store.connect import AsyncConnection, aconnect
from pgflow.store.dice import uniform
from pgflow.store.statement import APending, Statement, arun, astart
from pgflow.worker import report
from pgflow.worker.decide import Decision
from pgflow.worker.holding import Refusal
from pgflow.worker.maintenance import EARLY_SECONDS, Maintenance
from pgflow.worker.outcome import Erred
from pgflow.worker.settler import Settler
from pgflow.worker.token import Token

__all__ = ["Claimer"]

T = TypeVar("T")

log = logging.getLogger("pgflow.worker")

HELD_UP_SECONDS = 0.01  # before tokens that somebody else has locked are sent again
CONFLICT_SECONDS = 0.03  # until a token that met a second conflict is due: see job/settle
STALE_SECONDS = 2.0  # for which a claimed token may wait in memory for a slot
LONGEST_PAUSE_SECONDS = 5.0
FORGOTTEN = timedelta(days=1)  # after the end of its lease, a worker's row is deleted

Refused = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
Outage = (psycopg.Error, Unreachable, OSError)  # whatever else is wrong: wait, and try again


@dataclass(frozen=True, slots=True)
class Turn:
    """What goes out in one round trip: statements by name, and what their answers are about."""

    statements: Mapping[str, Statement[Any]]
    decisions: list[Decision]
    refused: list[Refusal]
    rooms: Mapping[str, int]
    asked: Mapping[int, Token]


class Claimer:
    """The worker's one connection for tokens. `turn` does whatever is due, in one round trip where it can.

    `register` gives the worker an identity and its heart a lease; `may_claim` says whether it may take more.
    """

    def __init__(
        self,
        dsn: str,
        settler: Settler,
        *,
        poll: timedelta,
        sweep: timedelta,
        register: Callable[[AsyncConnection], Any],
        may_claim: Callable[[], bool],
    ) -> None:
        self.conn: AsyncConnection | None = None
        self.is_hungry = True
        self.is_lost = False
        self.must_check = False
        self.found_nothing = False
        self._dsn = dsn
        self._settler = settler
        self._poll = poll.total_seconds()
        self._maintenance = Maintenance(sweep)
        self._register = register
        self._may_claim = may_claim
        self._next_poll = 0.0
        self._failures = 0
        self._unknown: list[Decision] = []
        self._is_in_doubt = False
        self._had_suspect = False
        self._to_wake: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether outcomes wait to be settled, or to be settled again."""
        return self._settler.has_outcomes or bool(self._unknown)

    def pause(self) -> float:
        """Seconds until something is due; 0 when something is to be done now."""
        if self._settler.is_held_up:
            return HELD_UP_SECONDS
        if self.has_work or self.is_lost or self.must_check:
            return 0.0
        now = time.monotonic()
        if not (self._may_claim() and self._settler.holding.rooms(now)):
            return max(0.0, self._maintenance.next_at - now)
        if self.is_hungry:
            return 0.0
        return max(0.0, min(self._next_poll, self._maintenance.next_at) - now)

    async def turn(self) -> None:
        """Do what is due. An outage is waited out: what was to be settled is settled when the database is back."""
        if self.is_lost:
            self._unknown = []
            self._settler.abandon()
            self._settler.worker = 0
        try:
            if self.conn is None or self.conn.closed:
                self.conn = await aconnect(self._dsn, role="worker")
                self.is_hungry = True
                if self._settler.worker:
                    await self._ask(self.conn, worker.attach(self._settler.schema, self._settler.worker))
            if not self._settler.worker:
                await self._register(self.conn)
                self.is_lost = False
            await self._exchange(self.conn)
            self._failures = 0
        except Outage as error:
            await self._hold_out(error)
        holding, had_suspect = self._settler.holding, self._had_suspect
        self._had_suspect = holding.has_suspect
        self.is_hungry |= had_suspect and not self._had_suspect  # it kept the worker from claiming
        holding.run_waiting()

    async def _exchange(self, conn: AsyncConnection) -> None:
        now = time.monotonic()
        turn = self._plan(now)
        if not turn.statements:
            return
        try:
            answers = await self._send(conn, turn.statements)
        except Refused as error:
            if not turn.decisions:
                raise
            self._unknown = []
            self.is_hungry = True
            await self._settle_singly(conn, turn.decisions, error)
            return
        self._unknown = []
        self._take_over(turn, answers, now)
        if self._is_in_doubt:  # what was committed without our knowing is ours in the database only
            settler = self._settler
            await self._ask(conn, job.reconcile(settler.schema, settler.worker, settler.holding.tokens))
            self._is_in_doubt = False
        await self._wake_others(conn, now)

    def _plan(self, now: float) -> Turn:
        """Put together what to send: what was decided, what upkeep is due, and a claim if there is room."""
        settler = self._settler
        schema, me, tokens = settler.schema, settler.worker, settler.holding.tokens
        statements: dict[str, Statement[Any]] = {}
        if self._maintenance.is_sweep_due(now):
            settler.release(settler.holding.stale(now - STALE_SECONDS))
            statements["evict"] = worker.evict(schema)
            statements["rescue"] = job.rescue(schema)
            statements["revive"] = job.revive(schema, self._maintenance.seen_run)
            if self._maintenance.is_forget_due(now):
                statements["forget"] = worker.forget(schema, FORGOTTEN)
            if not self._unknown:
                statements["reconcile"] = job.reconcile(schema, me, tokens)
            self.must_check |= bool(tokens)  # a cancel is heard of at once, but only by those who listen
        decisions = self._unknown = self._unknown or settler.take()
        refused = settler.holding.take_refused()
        if decisions or refused:
            settle = settler.statement(decisions, refused)
            if not settle.prepare:
                statements["replan"] = job.replan(schema)
            statements["settle"] = settle
        if self._maintenance.is_stage_due(now, decisions):
            statements["stage"] = job.stage(schema)
            statements["send_due"] = signal.send_due(schema)
        early = EARLY_SECONDS if statements else 0.0  # goes along, so that an idle worker wakes once
        is_due = now >= self._next_poll - early or self._maintenance.is_due_known
        is_wanted = self.is_hungry or bool(decisions) or is_due
        rooms = settler.holding.rooms(now) if is_wanted and self._may_claim() and not self._is_in_doubt else {}
        if rooms:
            statements["claim"] = job.claim(schema, me, rooms)
            self.is_hungry = False  # whoever wakes us from here on does so for the next claim
        asked: dict[int, Token] = {}
        if self.must_check:
            self.must_check, asked = False, dict(tokens)
            statements["lost"] = job.lost(schema, me, {token.id: token.attempt for token in asked.values()})
        return Turn(statements, decisions, refused, rooms, asked)

    def _take_over(self, turn: Turn, answers: Mapping[str, Any], now: float) -> None:
        """Take in what the statements returned."""
        settler = self._settler
        if "settle" in answers:
            settler.adopt(turn.decisions, answers["settle"])
            settler.adopt_refused(turn.refused, answers["settle"])
        self._maintenance.learn(now, answers)
        if any(row.status == "conflict" for row in answers.get("settle", ())):
            self._maintenance.expect(now + CONFLICT_SECONDS)
        if evicted := answers.get("evict"):
            log.warning("transactions that workers without a lease had left open, and that are ended: %d", evicted)
        if "rescue" in answers:
            settler.stats.rescued += answers["rescue"].tokens
            report.rescued(settler.worker, answers["rescue"])
            if revived := answers["revive"].tokens:
                log.warning("active instances that had no token left, and are taken up again: %d", revived)
        for token_id in answers.get("lost", ()):
            settler.holding.give_up(turn.asked[token_id])
        made_ready = [answers[name] for name in ("stage", "send_due", "rescue", "revive") if name in answers]
        for each in made_ready:
            self.wake(set(each.queues) - settler.holding.lanes.keys())  # what is not served here
        if "claim" in answers:
            self._claimed(answers["claim"], turn.rooms, now)
        elif any(each.queues for each in made_ready):
            self.is_hungry = True

    def _claimed(self, rows: list[job.Claimed], rooms: Mapping[str, int], now: float) -> None:
        self._settler.stats.claimed += len(rows)
        self._settler.holding.take_in(rows)
        taken = dict.fromkeys(rooms, 0)
        for row in rows:
            taken[row.queue] += 1
        # Where all that was asked for came, there may be more.
        self.is_hungry |= any(taken[queue] >= room for queue, room in rooms.items())
        self.found_nothing = not rows
        self._next_poll = now + self._poll * uniform(0.9, 1.1)

    async def _ask(self, conn: AsyncConnection, statement: Statement[T]) -> T:
        """Run one statement, in a round trip of its own."""
        self._settler.stats.round_trips += 1
        return await arun(conn, statement)

    async def _send(self, conn: AsyncConnection, statements: Mapping[str, Statement[Any]]) -> dict[str, Any]:
        if len(statements) == 1:
            ((name, statement),) = statements.items()
            return {name: await self._ask(conn, statement)}
        self._settler.stats.round_trips += 1
        pending: dict[str, APending[Any]] = {}
        async with conn.pipeline():  # one implicit transaction: all of it or nothing
            for name, statement in statements.items():
                pending[name] = await astart(conn, statement)
        # Read when all is over: to ask for a result inside would be a round trip more, with the transaction left open.
        return {name: await sent.result() for name, sent in pending.items()}

    async def _settle_singly(self, conn: AsyncConnection, decisions: list[Decision], error: psycopg.Error) -> None:
        """Something in a batch cannot be stored: find out what, and let only that step fail."""
        log.warning("a batch of %d cannot be settled (%s): settling one by one", len(decisions), error)
        settler = self._settler
        for decision in decisions:
            try:
                settler.adopt([decision], await self._ask(conn, settler.statement([decision])))
            except Refused as reason:
                text = f"what the step came to cannot be stored: {reason}"
                outcomes = [
                    Erred(outcome.token, text, type(reason).__name__, retry=False) for outcome in decision.outcomes
                ]
                failed = settler.decide([*outcomes])
                settler.adopt([failed], await self._ask(conn, settler.statement([failed])))

    async def _hold_out(self, error: Exception) -> None:
        """The database does not answer, or refuses for now: keep what is to be settled and try again soon."""
        self._failures += 1
        self._is_in_doubt = self.is_hungry = True
        pause = min(LONGEST_PAUSE_SECONDS, 0.05 * 2 ** min(self._failures, 10)) * uniform(0.5, 1.0)
        log.warning("worker %d: %s; trying again in %.1f s", self._settler.worker, str(error).strip(), pause)
        # A server that takes no writes any more has been demoted: the next connection finds its successor.
        if self.conn is not None and (self.conn.broken or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)):
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
        rooms = self._settler.holding.rooms(now) if self._may_claim() else {}
        if any(queue in rooms for queue in queues):
            self.is_hungry = True
        if wanted := {queue for queue in queues if queue not in rooms}:
            await self._ask(conn, worker.wake(self._settler.schema, wanted))
