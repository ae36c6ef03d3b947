"""Run one worker from its start to its stop: connect, claim, run steps, settle, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from math import inf
from typing import Any

import psycopg

from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.values.codec import Codec
from pgflow.core.values.sanitize import error_message, format_traceback, sanitize_text, type_name
from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.migration_files import migrations
from pgflow.database.statement import arun
from pgflow.database.transaction_status import is_idle
from pgflow.errors import Conflict, PgflowError, SchemaError
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.migrations.schema import too_new
from pgflow.process import Process, current, exit_if_forked
from pgflow.store import doctor, job, worker
from pgflow.worker import points, report
from pgflow.worker.claimed_job import ClaimedJob
from pgflow.worker.claimer import Claimer
from pgflow.worker.heartbeat import Heartbeat
from pgflow.worker.heartbeat_process import HeartbeatProcess
from pgflow.worker.held_jobs import HeldJobs
from pgflow.worker.listener import Listener
from pgflow.worker.outcome import AttemptFailed
from pgflow.worker.queue_buffer import QueueBuffer
from pgflow.worker.runner import Runner
from pgflow.worker.settler import Settler, Stats
from pgflow.worker.transactional import TransactionalRunner

__all__ = ["Worker"]

log = Logger("pgflow.worker")

MAX_FAILED_TURNS = 10  # turns that go wrong within so many seconds; one more ends the worker
FAULTS_SECONDS = 60.0
SPARE_THREADS = 100  # for sync steps that were given up and still run
LOOK_SECONDS = 0.1  # when the worker stops: how often to look whether steps have ended that it has given up
LONGEST_REST_SECONDS = 5.0  # also when nothing is to be done
LOOP_STALL_TIMEOUT = (
    60.0  # in which a loop that is alive has moved: a turn ends sooner, even where the database is away
)


class Worker:
    """A worker of the workflows that an app knows: `queues` says how many steps of each queue run at once.

    `lease` is how long its tokens stay its own without a heartbeat, `poll` how often it looks for work when nobody
    wakes it, `sweep` how often it looks for tokens of dead workers. `pooler` says that a pooler stands in between: then
    it only polls, unless `listen` says otherwise, because one in session mode delivers notifications. `drain=True` ends
    `run` as soon as nothing is left that will go on by itself: for scripts and tests. `codec` is the app's. `pulse`
    keeps the lease also while a step holds Python's global lock: see `HeartbeatProcess.fork`. After `run`,
    `abandoned` is the
    number of steps that did not end within `shutdown_timeout` and were given back, or else of sync ones that had been
    given up before, by a cancel or for their `max_runtime`, and still run in their threads.

    A worker can run again after `run` has returned or raised, also in another event loop: each run registers a worker
    of its own in the database. `stats` keep counting, `is_ready` is a new event for each run. One run at a time: a
    second one meanwhile raises `Conflict`.

        worker = app.worker({"default": 10})
        await worker.run()          # until stop() is called, from a signal handler or another task
    """

    def __init__(
        self,
        dsn: str,
        workflows: Iterable[type[DefinedWorkflow[Any]]],
        *,
        queues: Mapping[str, int],
        schema: str = "pgflow",
        lease: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=1),
        sweep: timedelta = timedelta(seconds=5),
        shutdown_timeout: timedelta = timedelta(seconds=25),
        pooler: bool = False,
        listen: bool | None = None,
        drain: bool = False,
        codec: Codec | None = None,
        pulse: HeartbeatProcess | None = None,
    ) -> None:
        self.dsn = dsn
        self.pooler = pooler
        self.schema = schema
        self.queues = dict(queues)
        self.lease = lease
        self.shutdown_timeout = shutdown_timeout
        self.is_ready = asyncio.Event()
        self.stats = Stats()
        self.abandoned = 0
        self._workflows = list(workflows)
        self._moved_at = time.monotonic()
        self._listens = not pooler if listen is None else listen
        self._drains = drain
        self._poll = poll
        self._sweep = sweep
        self._codec = codec
        self._pulse = pulse
        self._stopping = asyncio.Event()
        self._running = threading.Lock()  # held by the run that is under way
        self._has_run = False
        self._assemble()

    def _assemble(self) -> None:
        """Make everything that belongs to one run: connections, threads, locks of its event loop, what it holds."""
        most = sum(self.queues.values()) + SPARE_THREADS
        self._threads = ThreadPoolExecutor(max_workers=most, thread_name_prefix="pgflow-step")
        self._runner = Runner(self._threads, self._codec)
        buffers = {name: QueueBuffer(name, limit) for name, limit in self.queues.items()}
        self.held_jobs = HeldJobs(buffers, start=self._start, drop=self._drop, codec=self._codec)
        for workflow in self._workflows:
            self.held_jobs.learn(workflow)
        self.settler = Settler(
            self.schema, self.held_jobs, wake=lambda queues: self._claimer.wake(set(queues)), stats=self.stats
        )
        self._claimer = Claimer(
            self.dsn,
            self.settler,
            pooler=self.pooler,
            poll=self._poll,
            sweep=self._sweep,
            register=self._register,
            may_claim=self._may_claim,
        )
        self._transactions = TransactionalRunner(
            self.dsn,
            self._runner,
            self.settler,
            self._threads,
            self._claimer.report,
            capacity=sum(self.queues.values()),
            pooler=self.pooler,
        )
        self._heart: Heartbeat | None = None
        self._process: Process
        self._loop: asyncio.AbstractEventLoop  # known while it runs: to look it up for each step costs a system call
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._dropped: set[asyncio.Task[None]] = set()
        self._overdue: set[asyncio.Task[None]] = set()
        self._faults: list[float] = []
        self._wakeup = asyncio.Event()

    def liveness_error(self) -> str | None:
        """Say what keeps this worker from going on, None when it is alive. From any thread; so is `readiness_error`.

        An outage of the database is none: it waits, and goes on by itself.
        """
        still = time.monotonic() - self._moved_at
        if still > LOOP_STALL_TIMEOUT:
            return f"the event loop has stood still for {still:.0f} s: does a step keep it from running?"
        return None

    def readiness_error(self) -> str | None:
        """Say why this worker takes no steps now, None when it may: it is alive, has a lease and reaches the database.

        worker.readiness_error()    # "the database does not answer"
        """
        if self._has_run and not self._running.locked():
            return "it is not running"
        if self._stopping.is_set():
            return "it is stopping"
        if not self.is_ready.is_set():
            return "it is starting"
        if self._claimer.fault is not None:
            return f"the database refuses {self._claimer.fault}"
        if self._claimer.is_cut_off:
            return "the database does not answer"
        if not self._may_claim():
            return "its lease may have ended"
        return self.liveness_error()

    def adopt(self, workflow: type[DefinedWorkflow[Any]]) -> None:
        """Run the steps of another workflow, too, from now on."""
        self._workflows.append(workflow)
        self.held_jobs.learn(workflow)

    async def run(self) -> None:
        """Work until `stop` is called, then finish what runs. Raises when the database cannot be used at the start.

        When a migration is announced that breaks this code, it stops, too, and raises `SchemaTooNew` at the end. When
        it is cancelled, it cancels its steps and gives them back. Afterwards it can be called again; while it runs, a
        second call raises `Conflict`.

            try:
                await worker.run()
            except SchemaMissing:
                app.migrate()
                await worker.run()
        """
        if not self._running.acquire(blocking=False):
            raise Conflict(
                "this worker is running already",
                hint="Make another one with app.worker(), or call run() again when the first call has ended.",
            )
        try:
            if self._has_run:
                self._assemble()
            self._has_run = True
            self._moved_at = time.monotonic()
            self.abandoned = 0
            await self._run_once()
        finally:
            self._moved_at = inf  # no loop has to move now
            self.is_ready = asyncio.Event()
            self._stopping.clear()
            self._running.release()

    async def _run_once(self) -> None:
        claimer, self._loop = self._claimer, asyncio.get_running_loop()
        self._process = current()
        listener: asyncio.Task[None] | None = None
        is_drained = False
        try:
            claimer.conn = await aconnect(self.dsn, role="worker", pooler=self.pooler)
            await migrate.acheck(claimer.conn, self.schema)
            await self._warn(claimer.conn)
            self._heart = Heartbeat(
                self.dsn,
                self.schema,
                self.lease,
                lambda: self._loop.call_soon_threadsafe(self._lease_ended),
                self._pulse,
                pooler=self.pooler,
            )
            await self._register(claimer.conn)
            if self._listens:
                ear = Listener(self.dsn, self.schema, self._notified, pooler=self.pooler)
                listener = asyncio.create_task(ear.run())
            self.is_ready.set()
            while not self._stopping.is_set():
                self._moved_at = time.monotonic()
                await self._rest(min(claimer.pause(), LONGEST_REST_SECONDS))
                await self._turn()
                if claimer.overtaken_by is not None:
                    log.warning("migration %s breaks this pgflow: it takes nothing more", claimer.overtaken_by)
                    self.stop()
                if self._drains and await self._is_drained():
                    break
            await self._drain()
            is_drained = True
            if claimer.overtaken_by is not None:
                raise too_new(self.schema, len(migrations()), claimer.overtaken_by)
        finally:
            await self._close(listener, is_drained=is_drained)

    async def _close(self, listener: asyncio.Task[None] | None, *, is_drained: bool) -> None:
        """Leave nothing of this run behind, also when closing is cancelled."""
        try:
            if listener is not None:
                listener.cancel()
            if self._heart is not None:
                self._heart.stop()
            if not is_drained:
                self.held_jobs.abandon()
            try:
                if listener is not None:
                    await asyncio.gather(listener, return_exceptions=True)
                await self._transactions.close()
            finally:
                await self._leave(is_drained=is_drained)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> None:
        """Take a turn. After one that went wrong in a way that nobody thought of, begin anew under another id."""
        exit_if_forked(self._process)  # by a step, a handler or a route that forked and let the child return
        try:
            await self._claimer.turn()
        except SchemaError:
            raise
        except Exception:
            log.exception("worker %d: a turn went wrong; it gives everything back", self.settler.worker)
            now = time.monotonic()
            self._faults = [*(each for each in self._faults if now - each < FAULTS_SECONDS), now]
            if len(self._faults) > MAX_FAILED_TURNS:
                raise
            await self.give_back()
            self._claimer.is_lost = True

    def stop(self) -> None:
        """Stop claiming and let what runs come to its end, for as long as `shutdown_timeout`.

        Call it in the event loop. Without a run under way, the next one ends as soon as it has started: so no stop is
        lost that comes between `create_task(worker.run())` and the start of the task.
        """
        self._stopping.set()
        self._wakeup.set()

    async def give_back(self) -> None:
        """Cancel what runs and give its tokens back at once; the attempts do not count."""
        self.held_jobs.abandon()
        await asyncio.sleep(0)
        conn = self._claimer.conn
        if conn is not None and not conn.closed:
            try:
                await arun(conn, job.reconcile(self.schema, self.settler.worker, ()))
            except (psycopg.Error, PgflowError, OSError) as error:
                log.warning("worker %d cannot give its steps back: %s", self.settler.worker, str(error).strip())

    async def _rest(self, seconds: float) -> None:
        """Wait until somebody wakes us, or for so long.

        With nothing to wait for, let what can end now join this batch.
        """
        if seconds <= 0:
            await asyncio.sleep(0)
        elif not self._wakeup.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
        self._wakeup.clear()

    async def _drain(self) -> None:
        """Give back what has not begun, let what runs end, settle it all; the heart beats on meanwhile."""
        settler, claimer = self.settler, self._claimer
        settler.is_draining = True
        settler.release(self.held_jobs.not_started())
        deadline = time.monotonic() + self.shutdown_timeout.total_seconds()
        log.info("worker %d stops; steps that still run: %d", settler.worker, len(self._tasks))
        while (self._tasks or self._runner.calls or claimer.has_work) and time.monotonic() < deadline:
            self._moved_at = time.monotonic()
            if claimer.has_work:
                await claimer.turn()
            pause = claimer.pause() if claimer.has_work else 1.0 if self._tasks else LOOK_SECONDS
            await self._rest(min(pause, deadline - time.monotonic()))
        self.abandoned = len(self._tasks) or len(self._runner.calls)
        if self._tasks:
            log.warning("worker %d gives back steps that did not end in time: %d", settler.worker, self.abandoned)
            await self.give_back()
        elif self.held_jobs.tokens:  # the database refuses what their steps returned
            log.warning(
                "worker %d gives back steps that it cannot settle: %d", settler.worker, len(self.held_jobs.tokens)
            )
            await self.give_back()
        elif self.abandoned:
            log.warning("worker %d leaves steps behind that it gave up: %d", settler.worker, self.abandoned)

    async def _is_drained(self) -> bool:
        claimer = self._claimer
        if self.held_jobs.tokens or self.settler.has_outcomes or claimer.conn is None:
            return False
        if not claimer.found_nothing:
            # The last step may have been a transactional one, which settles without a claim: polling would only look.
            claimer.is_hungry = True
            return False
        try:
            return await arun(claimer.conn, job.drained(self.schema, self.queues))
        except (psycopg.Error, PgflowError, OSError):
            return False  # nobody knows; the next turn deals with it

    # -- the lease

    async def _register(self, conn: AsyncConnection) -> None:
        asked_at, nonce = time.monotonic(), secrets.token_hex(16)
        statement = worker.register(
            self.schema,
            node=socket.gethostname(),
            pid=os.getpid(),
            queues=list(self.queues),
            version=own_version(),
            nonce=nonce,
            backend=conn.info.backend_pid,
            lease=self.lease,
        )
        while not (number := await arun(conn, statement)):
            await migrate.acheck(conn, self.schema)  # says why, unless that is over by now
        self.settler.worker = number
        self._claimer.nonce = nonce
        points.reached("worker.registered")
        if self._heart is not None:
            self._heart.start(self.settler.worker, nonce, asked_at)
        queues = ", ".join(f"{name}={limit}" for name, limit in self.queues.items())
        log.info("worker %d is ready: %s", self.settler.worker, queues)
        report.ready(self.settler.worker, self.queues, self.schema)

    async def _warn(self, conn: AsyncConnection) -> None:
        """Say it once when this server does not keep what it has committed, on which all promises stand."""
        found = await arun(conn, doctor.settings(self.schema))
        loose = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if found[name] == "off"]
        if loose:
            log.warning("%s: off. What this server has committed may be gone after a crash", ", ".join(loose))

    def _may_claim(self) -> bool:
        return not self._stopping.is_set() and self._heart is not None and self._heart.lease_is_safe()

    def _lease_ended(self) -> None:
        self._claimer.is_lost = True
        self._wakeup.set()

    async def _leave(self, *, is_drained: bool) -> None:
        """End the lease. After an error or a cancellation give back what is held first: a rescue counts a crash."""
        conn, me = self._claimer.conn, self.settler.worker
        try:
            if me and not is_drained and (conn is None or not is_idle(conn)):
                if conn is not None:
                    await conn.close()
                conn = await aconnect(self.dsn, role="worker", pooler=self.pooler)
            if me and conn is not None and not conn.closed:
                if not is_drained:
                    await arun(conn, job.reconcile(self.schema, me, ()))
                await arun(conn, worker.leave(self.schema, me))
        except (psycopg.Error, PgflowError, OSError) as error:
            log.info("worker %d cannot end its lease, which ends by itself: %s", me, error)
        finally:
            if conn is not None:
                await conn.close()

    def _notified(self, queue: str | None) -> None:
        if queue == "":
            self._claimer.must_check = True
        elif queue is None or queue == worker.SWEEP:  # None: anything may have gone unheard
            self._claimer.hasten()
            self._claimer.is_hungry = True
        elif queue in self.queues:
            self._claimer.is_hungry = True
        else:
            return
        self._wakeup.set()

    # -- tokens as tasks

    def _start(self, token: ClaimedJob) -> None:
        self._tasks[token.id] = self._loop.create_task(self._run(token))

    async def _run(self, token: ClaimedJob) -> None:
        held_jobs, settler, tasks = self.held_jobs, self.settler, self._tasks  # those of this run
        step = token.run.graph.nodes[token.step].step if token.step else None
        is_transactional = step is not None and step.transactional and token.kind == "execute"
        me = tasks[token.id]
        limit = None if step is None or token.kind != "execute" else step.max_runtime
        if limit is not None:
            timer = self._loop.call_later(limit.total_seconds(), self._end_overdue, token)
        try:
            settled = await (self._transactions if is_transactional else self._runner).run(token)
        except asyncio.CancelledError:
            if me in self._overdue:
                settled = self._runner.overdue(token)
            else:
                settled = AttemptFailed(token, "the step was cancelled from within", "CancelledError")
        except BaseException as error:  # the runner turns the step's into outcomes; no other may cost the slot
            log.error(
                "step %s of %s could not be run:\n%s",
                token.step,
                token.run.id,
                sanitize_text(format_traceback(error), tail=True),
            )
            settled = AttemptFailed(
                token, sanitize_text(f"the step could not be run: {error_message(error)}"), type_name(error)
            )
        finally:
            if limit is not None:
                timer.cancel()
            if tasks.get(token.id) is me:
                del tasks[token.id]
            self._wakeup.set()
        is_dropped = me in self._dropped  # also when the step caught the cancellation
        if isinstance(settled, tuple):
            decision, rows = settled
            if is_dropped:  # too late, it has been committed: then it is told
                held_jobs.buffers[token.queue].settling += 1
            else:
                held_jobs.buffers[token.queue].finished()
            settler.adopt([decision], rows)
        elif is_dropped:
            return
        else:
            settler.finished(settled)
        held_jobs.run_waiting()

    def _end_overdue(self, token: ClaimedJob) -> None:
        """End a step whose time is over; not while it commits, which has limits of its own and an end to be known."""
        task = self._tasks.get(token.id)
        if task is not None and token not in self._transactions.committing:
            self._overdue.add(task)
            task.add_done_callback(self._overdue.discard)
            task.cancel()

    def _drop(self, token: ClaimedJob) -> None:
        task = self._tasks.pop(token.id, None)
        if task is not None:
            # Counted here: a task that has not begun to run will never do it.
            self.held_jobs.buffers[token.queue].running -= 1
            self._dropped.add(task)
            task.add_done_callback(self._dropped.discard)
            if token not in self._transactions.committing:
                task.cancel()


def own_version() -> str:
    """The version of pgflow that runs here."""
    try:
        return version("pgflow-engine")
    except PackageNotFoundError:  # run from a folder, without being installed
        return "unknown"
