"""Run one worker process: connect, claim, run steps, settle, and stop in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psycopg

from pgflow.core.workflow import Workflow
from pgflow.errors import PgflowError, Unreachable
from pgflow.store import job, migrate, worker
from pgflow.store.connect import AsyncConnection, aconnect
from pgflow.store.listen import Listener
from pgflow.store.statement import APending, Statement, arun, astart
from pgflow.worker.decide import Decision
from pgflow.worker.heart import Heart
from pgflow.worker.lane import Lane
from pgflow.worker.maintenance import Maintenance
from pgflow.worker.outcome import Erred
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler, Stats
from pgflow.worker.token import Token
from pgflow.worker.transaction import Transactions

__all__ = ["Worker"]

log = logging.getLogger("pgflow.worker")


class Worker:
    """A worker of the workflows that an app knows: `queues` says how many steps of each queue run at once.

        worker = Worker(app.dsn, app.workflows, queues={"default": 10})
        await worker.run()          # until stop() is called: from a signal handler, or another task

    `poll` is how often it looks for work when nobody wakes it, `lease` how long its tokens stay its own without a heartbeat,
    `sweep` how often it looks for tokens of dead workers. `listen=False` polls only, for a pooler in transaction mode.
    """

    def __init__(
        self,
        dsn: str,
        workflows: Iterable[type[Workflow[Any]]],
        *,
        queues: Mapping[str, int],
        schema: str = "pgflow",
        lease: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=1),
        sweep: timedelta = timedelta(seconds=5),
        shutdown_timeout: timedelta = timedelta(seconds=25),
        listen: bool = True,
    ) -> None:
        self.dsn = dsn
        self.schema = schema
        self.queues = dict(queues)
        self.lease = lease
        self.poll = poll
        self.shutdown_timeout = shutdown_timeout
        self.is_ready = asyncio.Event()
        self.abandoned = 0
        self._workflows = {(workflow.name, workflow.version): workflow for workflow in workflows}
        self._listen = listen
        self._lanes = {name: Lane(name, limit) for name, limit in self.queues.items()}
        self._threads = ThreadPoolExecutor(max_workers=sum(self.queues.values()), thread_name_prefix="pgflow-step")
        self._runner = Runner(self._threads)
        self.settler = Settler(
            schema, self._workflows, self._lanes, start=self._start, drop=self._drop, wake=self._wake_others
        )
        self._transactions = Transactions(dsn, self._runner, self.settler, self._threads)
        self._maintenance = Maintenance(schema, sweep)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._dropped: set[int] = set()
        self._conn: AsyncConnection | None = None
        self._in_doubt: list[Decision] = []
        self._wakeup = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hungry = True
        self._next_poll = 0.0
        self._is_lost = False
        self._must_check = False
        self._to_wake: set[str] = set()

    @property
    def stats(self) -> Stats:
        """Counters of what this worker has done."""
        return self.settler.stats

    # -- life

    async def run(self) -> None:
        """Work until `stop` is called, then finish what runs. Raises when the database cannot be used at the start."""
        loop = asyncio.get_running_loop()
        self._conn = await aconnect(self.dsn, role="worker")
        await migrate.acheck(self._conn, self.schema)
        heart = Heart(self.dsn, self.schema, self.lease, lambda: loop.call_soon_threadsafe(self._lease_ended))
        self._heart = heart
        listener: asyncio.Task[None] | None = None
        try:
            await self._register()
            if self._listen:
                listener = asyncio.create_task(
                    Listener(self.dsn, self.schema, self._notified).run(), name="pgflow-listen"
                )
            self.is_ready.set()
            while not self._stopping.is_set():
                await self._sleep()
                await self._turn()
            await self._drain()
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)
            heart.stop()
            await self._transactions.close()
            await self._leave()
            self._threads.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """Stop claiming and let what runs come to its end, for as long as `shutdown_timeout`. Call it in the event loop."""
        self._stopping.set()
        self._wakeup.set()

    async def _register(self) -> None:
        assert self._conn is not None  # noqa: S101 -- connected before
        asked_at = time.monotonic()
        statement = worker.register(
            self.schema,
            node=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self.queues),
            version=own_version(),
            lease=self.lease,
        )
        self.settler.worker = await arun(self._conn, statement)
        self._is_lost = False
        self._heart.start(self.settler.worker, asked_at)
        log.info(
            "worker %d is ready: %s",
            self.settler.worker,
            ", ".join(f"{name}={limit}" for name, limit in self.queues.items()),
        )

    async def _leave(self) -> None:
        if self._conn is None:
            return
        try:
            if not self._conn.broken and not self._conn.closed and self.settler.worker:
                await arun(self._conn, worker.leave(self.schema, self.settler.worker))
        except (psycopg.Error, PgflowError) as error:
            log.info("could not say goodbye: %s", error)  # the lease ends by itself
        finally:
            await self._conn.close()

    async def _drain(self) -> None:
        """Give back what has not begun, let what runs end, settle it all; heartbeats go on meanwhile."""
        settler = self.settler
        settler.is_draining = True
        for lane in self._lanes.values():
            settler.release(lane.drain())
        deadline = time.monotonic() + self.shutdown_timeout.total_seconds()
        log.info("worker %d stops: %d steps still run", settler.worker, len(self._tasks))
        while (self._tasks or settler.has_outcomes) and time.monotonic() < deadline:
            self._wakeup.clear()
            if settler.has_outcomes:
                await self._turn()
            else:
                await self._wait(min(1.0, deadline - time.monotonic()))
        self.abandoned = len(self._tasks)
        if self.abandoned:
            log.warning("worker %d gives back %d steps that did not end in time", settler.worker, self.abandoned)
            await self.give_back()

    async def give_back(self) -> None:
        """Cancel what runs and give its tokens back at once; the attempts do not count."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.sleep(0)
        if self._conn is not None and not self._conn.closed:
            await arun(self._conn, job.reconcile(self.schema, self.settler.worker, ()))

    # -- one turn: settle, stage, claim

    async def _sleep(self) -> None:
        """Wait until there is something to do."""
        if self.settler.has_outcomes or self._is_lost or self._must_check:
            self._wakeup.clear()
            await asyncio.sleep(0)  # let steps that end at once join this batch
            return
        now = time.monotonic()
        if self._hungry and self.settler.rooms(now):
            return
        await self._wait(min(self._next_poll, self._maintenance.next_at) - now)

    async def _wait(self, seconds: float) -> None:
        if not self._wakeup.is_set() and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
        self._wakeup.clear()

    async def _turn(self) -> None:
        if self._is_lost:
            self._abandon()
        try:
            if self._conn is None or self._conn.closed:
                await self._reconnect()
            await self._exchange()
            self._failures = 0
        except (psycopg.OperationalError, psycopg.InterfaceError, Unreachable, OSError) as error:
            await self._hold_out(error)
        self.settler.run_waiting()

    async def _exchange(self) -> None:
        """One round trip and one commit: the outcomes that wait, due tokens, and the next claim."""
        assert self._conn is not None  # noqa: S101 -- connected before
        settler, conn, now = self.settler, self._conn, time.monotonic()
        if not settler.worker or self._is_lost:
            await self._register()
        decisions = self._in_doubt or settler.take()
        in_doubt, self._in_doubt = bool(self._in_doubt), decisions
        rooms = {} if in_doubt or not self._heart.is_sure() or self._stopping.is_set() else settler.rooms(now)
        statements: dict[str, Statement[Any]] = {}
        if self._maintenance.is_sweep_due(now) and not in_doubt:
            statements["reconcile"] = job.reconcile(self.schema, settler.worker, settler.held)
            statements["rescue"] = job.rescue(self.schema)
        if decisions or settler.has_outcomes:
            settle = settler.statement(decisions)
            if not settle.prepare:
                statements["replan"] = job.replan(self.schema)
            statements["settle"] = settle
        if self._maintenance.is_stage_due(now, decisions):
            statements["stage"] = job.stage(self.schema)
        if rooms:
            statements["claim"] = job.claim(self.schema, settler.worker, rooms)
        if self._must_check:
            self._must_check = False
            statements["lost"] = job.lost(
                self.schema, settler.worker, {held.id: held.attempt for held in settler.held.values()}
            )
        if not statements:
            return
        try:
            answers = await self._send(conn, statements)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
            self._in_doubt = []
            await self._settle_singly(decisions, error)
            return
        self._in_doubt = []
        if "settle" in answers:
            settler.adopt(decisions, answers["settle"])
        self._maintenance.learn(now, answers)
        if in_doubt:  # what was committed without our knowing is ours in the database only
            await arun(conn, job.reconcile(self.schema, settler.worker, settler.held))
        for token_id in answers.get("lost", ()):
            held = settler.held.get(token_id)
            if held is not None and token_id in self._tasks:
                settler.give_up(held)
        if "claim" in answers:
            claimed = answers["claim"]
            settler.take_in(claimed, now)
            self._hungry = bool(claimed) and any(
                sum(1 for row in claimed if row.queue == queue) >= room for queue, room in rooms.items()
            )
            self._next_poll = now + self.poll.total_seconds() * random.uniform(0.9, 1.1)  # noqa: S311 -- a dice for timing
        await self._notify(conn)

    async def _send(self, conn: AsyncConnection, statements: Mapping[str, Statement[Any]]) -> dict[str, Any]:
        self.settler.stats.round_trips += 1
        if len(statements) == 1:
            ((name, statement),) = statements.items()
            return {name: await arun(conn, statement)}
        pending: dict[str, APending[Any]] = {}
        async with conn.pipeline():  # one implicit transaction: all of it or nothing
            for name, statement in statements.items():
                pending[name] = await astart(conn, statement)
            return {name: await sent.result() for name, sent in pending.items()}

    async def _settle_singly(self, decisions: list[Decision], error: psycopg.Error) -> None:
        """Something in a batch cannot be stored: find out what, and let only that step fail."""
        assert self._conn is not None  # noqa: S101 -- connected before
        log.warning("a batch of %d could not be settled (%s): settling one by one", len(decisions), error)
        for decision in decisions:
            try:
                self.settler.adopt([decision], await arun(self._conn, self.settler.statement([decision])))
            except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as reason:
                if any(isinstance(outcome, Erred) for outcome in decision.outcomes):
                    raise
                failed = [
                    Erred(
                        outcome.token, f"the outcome could not be stored: {reason}", type(reason).__name__, retry=False
                    )
                    for outcome in decision.outcomes
                ]
                again = self.settler.decide([*failed])
                self.settler.adopt([again], await arun(self._conn, self.settler.statement([again])))

    async def _reconnect(self) -> None:
        self._conn = await aconnect(self.dsn, role="worker")
        self._hungry = True
        log.info("worker %d is connected again", self.settler.worker)

    async def _hold_out(self, error: Exception) -> None:
        """The database did not answer, or refused for now: keep what is to be settled, and try again soon."""
        self._failures = getattr(self, "_failures", 0) + 1
        pause = min(5.0, 0.05 * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 -- a dice for timing
        log.warning("worker %d: %s; trying again in %.1f s", self.settler.worker, str(error).strip(), pause)
        if self._conn is not None and (self._conn.broken or self._conn.closed):
            await self._conn.close()
        await asyncio.sleep(pause)

    # -- tokens in the event loop

    def _start(self, token: Token) -> None:
        self._tasks[token.id] = asyncio.create_task(self._run_token(token))

    async def _run_token(self, token: Token) -> None:
        step = token.run.graph.nodes[token.step].step if token.step else None
        try:
            if step is not None and step.transactional and token.kind == "execute":
                settled = await self._transactions.run(token)
                if isinstance(settled, tuple):
                    decision, rows = settled
                    self._lanes[token.queue].finished()
                    self.settler.adopt([decision], rows)
                    self.settler.run_waiting()
                    return
                outcome = settled
            else:
                outcome = await self._runner.run(token)
        except asyncio.CancelledError:
            if token.id in self._dropped or self._stopping.is_set():
                self._dropped.discard(token.id)
                self._lanes[token.queue].running -= 1
                return
            outcome = Erred(token, "the step cancelled itself", "CancelledError")
        finally:
            if self._tasks.get(token.id) is asyncio.current_task():
                del self._tasks[token.id]
            self._wakeup.set()
        self.settler.finished(outcome)
        self.settler.run_waiting()

    def _drop(self, token: Token) -> None:
        task = self._tasks.pop(token.id, None)
        if task is not None:
            self._dropped.add(token.id)
            task.cancel()

    def _lease_ended(self) -> None:
        self._is_lost = True
        self._wakeup.set()

    def _abandon(self) -> None:
        """The lease is gone: others may have the tokens. Begin anew, as a new worker."""
        self._in_doubt = []
        self.settler.abandon()
        self.settler.worker = 0
        self._hungry = True

    # -- waking

    def _notified(self, queue: str | None) -> None:
        if queue == "":
            self._must_check = True
        elif queue is None or queue in self._lanes:
            self._hungry = True
        else:
            return
        self._wakeup.set()

    def _wake_others(self, queues: Iterable[str]) -> None:
        self._to_wake.update(queues)

    async def _notify(self, conn: AsyncConnection) -> None:
        """Tell others of work that we could not take ourselves, after the commit that made it."""
        if not self._to_wake:
            return
        now = time.monotonic()
        rooms = self.settler.rooms(now)
        wanted = {queue for queue in self._to_wake if queue not in rooms or queue == ""}
        if any(queue in rooms for queue in self._to_wake):
            self._hungry = True
        self._to_wake.clear()
        if wanted:
            await arun(conn, worker.wake(self.schema, wanted))


def own_version() -> str:
    """The version of pgflow that runs here."""
    try:
        return version("pgflow-engine")
    except PackageNotFoundError:  # run from a folder, without being installed
        return "unknown"
