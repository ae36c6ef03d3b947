"""Run one worker from start to stop: connect, take turns, drain, and clean up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from math import inf
from typing import Any, Literal

import psycopg

from pgflow.config import check_queues
from pgflow.core.definition.middleware import Middleware
from pgflow.core.definition.retain import DEFAULT_RETAIN, Retain
from pgflow.core.definition.task import DefinedTask
from pgflow.core.definition.workflow import DefinedWorkflow
from pgflow.core.models.schedule import ScheduleSpec
from pgflow.database.connect import AsyncConnection, aconnect
from pgflow.database.migration_files import migrations
from pgflow.database.statement import arun
from pgflow.errors import Conflict, PgflowError, SchemaError
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.migrations.schema import too_new
from pgflow.payloads.policy import DEFAULT, PayloadPolicy
from pgflow.process import Process, current, exit_if_forked
from pgflow.store import job, schedule
from pgflow.store.notification import Notification
from pgflow.worker.cpu.attempts import has_cpu_work
from pgflow.worker.cpu.child import ChildSetup
from pgflow.worker.cpu.pool import CpuPool, checked_size
from pgflow.worker.held_jobs import HeldJobs
from pgflow.worker.job_tasks import JobTasks
from pgflow.worker.lease.heartbeat_process import HeartbeatProcess
from pgflow.worker.lease.identity import Lease
from pgflow.worker.lease.preflight import warn_of_unsafe_settings
from pgflow.worker.listener import Listener
from pgflow.worker.queue_buffer import QueueBuffer
from pgflow.worker.reports import Reports
from pgflow.worker.retention import OnPrune, Retention, check_retention
from pgflow.worker.runner import Runner
from pgflow.worker.schedule_targets import ScheduleTargets
from pgflow.worker.settler import Settler, Stats
from pgflow.worker.transactional.runner import TransactionalRunner
from pgflow.worker.turns.claimer import Claimer

__all__ = ["Worker"]

log = Logger("pgflow.worker")

MAX_FAILED_TURNS = 10  # in a window of FAILED_TURNS_SECONDS; one more ends the worker
FAILED_TURNS_SECONDS = 60.0
SPARE_THREADS = 100  # for sync steps that were given up and still run
POLL_INTERVAL = 0.1  # seconds between two looks, while draining, whether steps that were given up have ended
GATHER_SECONDS = 0.005  # at most, for a batch
MAX_REST_SECONDS = 5.0
LOOP_STALL_TIMEOUT = 60.0  # seconds: a turn of a live event loop ends sooner, even during an outage of the database


class Worker:
    """A worker of an app's workflows and `tasks`: `queues` sets how many steps and tasks of each queue run at once.

    `lease` is how long its jobs stay its own without a heartbeat, `poll` how often it looks for work without having
    been notified, `sweep` how often it looks for jobs of dead workers. With `pooler`, for a connection pooler, it only
    polls, unless `listen` is True: a pooler in session mode delivers notifications. With `drain=True`, `run` returns as
    soon as no job is left that can go on by itself: for scripts. With `drain="due"`, for tests, it does not wait for
    work that is due later, logs no warning about the server, and runs `cpu=True` work in threads of this process.
    `payloads`, `middleware` and the validated `schedules` are those of the app named `app`.
    `retention` and `on_prune` are the app's, too: what it deletes by itself.
    `heartbeat_process` keeps the lease while a step holds Python's global lock: see `HeartbeatProcess.fork`.
    `cpu_processes` is how many `cpu=True` steps and tasks run at once, in processes that import the app as `cpu_app`,
    such as "shop:app"; by default as many as the machine has processors, and the name under which the app is found.

    After `run`, `abandoned` is the number of steps that did not end within `shutdown_timeout` and were given back; if
    there are none, of sync steps that had been given up before, by a cancel or for their `max_runtime`, and still run
    in their threads.

    A worker can run again after `run` has returned or raised, also in another event loop: each run registers a new
    worker in the database. `stats` keep counting; `is_ready` is a new event for each run. A second run at the same time
    raises `Conflict`.

        worker = app.worker({"default": 10})
        await worker.run()          # until stop() is called, from a signal handler or another task
    """

    def __init__(
        self,
        dsn: str,
        workflows: Iterable[type[DefinedWorkflow[Any]]],
        *,
        queues: Mapping[str, int],
        tasks: Iterable[DefinedTask] = (),
        schema: str = "pgflow",
        lease: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=1),
        sweep: timedelta = timedelta(seconds=5),
        shutdown_timeout: timedelta = timedelta(seconds=25),
        pooler: bool = False,
        listen: bool | None = None,
        drain: bool | Literal["due"] = False,
        payloads: PayloadPolicy = DEFAULT,
        middleware: Sequence[Middleware] = (),
        schedules: Sequence[ScheduleSpec] = (),
        app: str = "",
        heartbeat_process: HeartbeatProcess | None = None,
        cpu_app: str | None = None,
        cpu_processes: int | None = None,
        retention: Retain | None = DEFAULT_RETAIN,
        on_prune: OnPrune | None = None,
    ) -> None:
        self.dsn = dsn
        self.pooler = pooler
        self.schema = schema
        self.queues = check_queues(queues)
        self.lease = lease
        self.shutdown_timeout = shutdown_timeout
        self.is_ready = asyncio.Event()
        self.stats = Stats()
        self.abandoned = 0
        self._workflows = list(workflows)
        self._defined_tasks = list(tasks)
        self._last_turn_at = time.monotonic()
        self._listens = not pooler if listen is None else listen
        self._drains = drain
        self._poll = poll
        self._sweep = sweep
        self._payloads = payloads
        self._middleware = tuple(middleware)
        self._targets = ScheduleTargets(app, schedules, payloads.codec)
        self._heartbeat_process = heartbeat_process
        self._cpu_app = cpu_app
        self._cpu_processes = checked_size(cpu_processes)
        check_retention(retention, on_prune)
        self._retention = None if retention is None else Retention(retention, on_prune, payloads)
        self._stopping = asyncio.Event()
        self._running = threading.Lock()  # held by the run that is under way
        self._has_run = False
        self._assemble()

    def _assemble(self) -> None:
        """Build all that belongs to one run: connections, threads, locks of its event loop, the jobs that it holds."""
        concurrency = sum(self.queues.values())
        self._wakeup = asyncio.Event()
        self._threads = ThreadPoolExecutor(concurrency + SPARE_THREADS, thread_name_prefix="pgflow-step")
        reports = Reports(self._payloads.codec, self._wakeup.set)
        setup = ChildSetup(self._cpu_app, self._payloads.reveal, self._payloads.limit)
        self._cpu = CpuPool(setup, self._cpu_processes)
        runner = Runner(
            self._threads, self._payloads, self._middleware, reports, cpu=None if self._drains == "due" else self._cpu
        )
        self._tasks = JobTasks(runner, self._wakeup)
        buffers = {name: QueueBuffer(name, limit) for name, limit in self.queues.items()}
        self.held_jobs = HeldJobs(buffers, start=self._tasks.start, drop=self._tasks.drop, payloads=self._payloads)
        for workflow in self._workflows:
            self.held_jobs.register(workflow)
            self._targets.register(workflow)
        for task in self._defined_tasks:
            self.held_jobs.register_task(task.definition)
            self._targets.register_task(task.definition)
        self.settler = Settler(
            self.schema, self.held_jobs, notify=lambda notifications: claimer.notify(notifications), stats=self.stats
        )
        self._lease = Lease(
            self.dsn,
            self.settler,
            queues=self.queues,
            lease=self.lease,
            on_lost=lambda: self._loop.call_soon_threadsafe(self._lease_lost),
            process=self._heartbeat_process,
            pooler=self.pooler,
        )
        self._claimer = claimer = Claimer(
            self.dsn,
            self.settler,
            self._lease,
            reports,
            pooler=self.pooler,
            poll=self._poll,
            sweep=self._sweep,
            may_claim=self._may_claim,
            payload_store=self._payloads.store,
            targets=self._targets,
            retention=self._retention,
        )
        self._transactional = TransactionalRunner(
            self.dsn,
            runner,
            self.settler,
            self._threads,
            claimer.faults.report,
            capacity=concurrency,
            pooler=self.pooler,
        )
        self._tasks.connect(self.settler, self._transactional)
        self._process: Process
        self._loop: asyncio.AbstractEventLoop
        self._failed_turns: list[float] = []
        self._has_peeked = False

    def liveness_error(self) -> str | None:
        """Return why this worker cannot go on, None while it is alive. From any thread, as `readiness_error`.

        An outage of the database is not an error here: the worker waits, and goes on afterwards.
        """
        stalled = time.monotonic() - self._last_turn_at
        if stalled > LOOP_STALL_TIMEOUT:
            return f"the event loop has stalled for {stalled:.0f} s: does a step block it?"
        return None

    def readiness_error(self) -> str | None:
        """Return why this worker runs no steps now, None if it is alive, has a lease and reaches the database.

        worker.readiness_error()    # "the database does not answer"
        """
        if self._has_run and not self._running.locked():
            return "it is not running"
        if self._stopping.is_set():
            return "it is stopping"
        if not self.is_ready.is_set():
            return "it is starting"
        if self._claimer.faults.current is not None:
            return f"the database refuses {self._claimer.faults.current}"
        if self._claimer.is_cut_off:
            return "the database does not answer"
        if not self._may_claim():
            return "its lease may have expired"
        return self.liveness_error()

    def adopt(self, given: type[DefinedWorkflow[Any]] | DefinedTask) -> None:
        """Run the steps of another workflow, or another task, too, from now on."""
        if isinstance(given, DefinedTask):
            self._defined_tasks.append(given)
            self.held_jobs.register_task(given.definition)
            self._targets.register_task(given.definition)
        else:
            self._workflows.append(given)
            self.held_jobs.register(given)
            self._targets.register(given)

    async def run(self) -> None:
        """Work until `stop` is called, then finish what runs. Raises if the database cannot be used at the start.

        When a migration is announced that breaks this code, the worker drains, and this raises `SchemaTooNew` at the
        end. When this is cancelled, it cancels the steps and gives their jobs back. Afterwards it can be called again;
        a second call at the same time raises `Conflict`.

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
            self._last_turn_at = time.monotonic()
            self.abandoned = 0
            await self._run_once()
        finally:
            self._last_turn_at = inf  # without a loop, none can stall
            self.is_ready = asyncio.Event()
            self._stopping.clear()
            self._running.release()

    def stop(self) -> None:
        """Stop claiming, and let the steps that run finish within `shutdown_timeout`.

        Call it in the event loop. Before a run, it ends the next one as soon as that has started: so a stop between
        `create_task(worker.run())` and the start of that task is not lost.
        """
        self._stopping.set()
        self._wakeup.set()

    async def give_back(self) -> None:
        """Cancel the steps that run and return their jobs at once; the attempts do not count."""
        self.held_jobs.abandon()
        await asyncio.sleep(0)
        conn = self._claimer.conn
        if conn is not None and not conn.closed:
            try:
                await arun(conn, job.reconcile(self.schema, self.settler.worker, ()))
            except (psycopg.Error, PgflowError, OSError) as error:
                log.warning("worker %d cannot give its jobs back: %s", self.settler.worker, str(error).strip())

    async def _run_once(self) -> None:
        claimer, self._loop = self._claimer, asyncio.get_running_loop()
        self._tasks.begin()
        self._process = current()
        listening: asyncio.Task[None] | None = None
        is_drained = False
        try:
            if self._drains != "due" and has_cpu_work(self._workflows, self._defined_tasks):
                await self._cpu.start()
            claimer.conn = await aconnect(self.dsn, role="worker", pooler=self.pooler)
            await migrate.acheck(claimer.conn, self.schema)
            if self._drains != "due":
                await warn_of_unsafe_settings(claimer.conn, self.schema)
            await self._lease.register(claimer.conn)
            await self._declare(claimer.conn)
            if self._listens:
                listener = Listener(self.dsn, self.schema, self._notified, pooler=self.pooler)
                listening = asyncio.create_task(listener.run())
            self._log_retention()
            self.is_ready.set()
            while not self._stopping.is_set():
                self._last_turn_at = time.monotonic()
                await self._rest(min(claimer.pause(), MAX_REST_SECONDS))
                await self._turn()
                if claimer.breaking_migration is not None:
                    log.warning("migration %s breaks this pgflow: the worker drains", claimer.breaking_migration)
                    self.stop()
                if self._drains and await self._is_drained():
                    break
            await self._drain()
            is_drained = True
            if claimer.breaking_migration is not None:
                raise too_new(self.schema, len(migrations()), claimer.breaking_migration)
        finally:
            await self._close(listening, is_drained=is_drained)

    async def _declare(self, conn: AsyncConnection) -> None:
        """Store the app's schedules, and mark those that it no longer declares."""
        targets = self._targets
        if targets.app:
            await arun(conn, schedule.declare(self.schema, targets.app, targets.specs, is_worker=True))

    def _log_retention(self) -> None:
        if self._retention is not None:
            log.info(
                "worker %d deletes ended instances: %s, unless their workflow sets its own retention; "
                "to keep them all: Pgflow(retention=None), or pgflow worker --no-retention",
                self.settler.worker,
                self._retention,
            )

    async def _close(self, listening: asyncio.Task[None] | None, *, is_drained: bool) -> None:
        """Release everything of this run, even if closing is cancelled."""
        try:
            if listening is not None:
                listening.cancel()
            self._lease.heartbeat.stop()
            if self._retention is not None:
                self._retention.stop()
            if not is_drained:
                self.held_jobs.abandon()
            try:
                if listening is not None:
                    await asyncio.gather(listening, return_exceptions=True)
                await self._transactional.close()
                await self._cpu.close()
            finally:
                await self._lease.end(self._claimer.conn, is_drained=is_drained)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> None:
        """Take a turn. After an unexpected error start again under a new identity."""
        exit_if_forked(self._process)  # a step, a handler or a route has forked and let the child return
        try:
            await self._claimer.turn()
        except SchemaError:
            raise
        except Exception:
            log.exception("worker %d: a turn failed; it gives its jobs back", self.settler.worker)
            now = time.monotonic()
            self._failed_turns = [*(each for each in self._failed_turns if now - each < FAILED_TURNS_SECONDS), now]
            if len(self._failed_turns) > MAX_FAILED_TURNS:
                raise
            await self.give_back()
            self._claimer.lose_lease()

    async def _rest(self, seconds: float) -> None:
        """Wait until something happens, or for so long. With 0 seconds, let steps that can end now join this batch."""
        if seconds <= 0:
            await self._gather()
        elif not self._wakeup.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
        self._wakeup.clear()

    async def _gather(self) -> None:
        """Let the event loop run as long as each pass ends steps, until half of the held jobs have an outcome.

        Otherwise a low concurrency would make small batches: a pass begins no more steps than that. The other half runs
        while the database settles the first.
        """
        settler, deadline = self.settler, time.monotonic() + GATHER_SECONDS
        while True:
            before = settler.outcomes
            await asyncio.sleep(0)
            is_growing = before < settler.outcomes < len(self.held_jobs.jobs) // 2
            if not is_growing or time.monotonic() > deadline:
                return

    async def _drain(self) -> None:
        """Give back the jobs that have not started, let the others finish, and settle them; heartbeats go on."""
        settler, claimer = self.settler, self._claimer
        settler.is_draining = True
        settler.release(self.held_jobs.not_started())
        deadline = time.monotonic() + self.shutdown_timeout.total_seconds()
        log.info("worker %d stops; steps that still run: %d", settler.worker, len(self._tasks))
        while (len(self._tasks) or self._tasks.left_behind or claimer.has_work) and time.monotonic() < deadline:
            self._last_turn_at = time.monotonic()
            if claimer.has_work:
                await claimer.turn()
            pause = claimer.pause() if claimer.has_work else 1.0 if len(self._tasks) else POLL_INTERVAL
            await self._rest(min(pause, deadline - time.monotonic()))
        self.abandoned = len(self._tasks) or self._tasks.left_behind
        if len(self._tasks):
            log.warning("worker %d gives back steps that did not end in time: %d", settler.worker, self.abandoned)
            await self.give_back()
        elif self.held_jobs.jobs:  # the database refuses their results
            unsettled = len(self.held_jobs.jobs)
            log.warning("worker %d gives back steps that it cannot settle: %d", settler.worker, unsettled)
            await self.give_back()
        elif self.abandoned:
            log.warning("worker %d leaves steps behind that it gave up: %d", settler.worker, self.abandoned)

    async def _is_drained(self) -> bool:
        claimer = self._claimer
        if self.held_jobs.jobs or self.settler.has_outcomes or claimer.conn is None:
            self._has_peeked = False
            return False
        if not claimer.found_nothing:
            # The last step may have been a transactional one, which settles without a claim; a poll would only peek.
            claimer.claim_soon()
            self._has_peeked = False
            return False
        try:
            if self._drains == "due":
                # The claim has found out what can run now: a queue may be paused. What the last step has scheduled is
                # not known yet; look once, because something due may have to wait for another session.
                if not self._has_peeked:
                    claimer.peeked(await arun(claimer.conn, job.peek(self.schema, self.queues, self._targets.scope)))
                    self._has_peeked = True
                return claimer.pause() > 0
            return await arun(claimer.conn, job.drained(self.schema, self.queues))
        except (psycopg.Error, PgflowError, OSError):
            return False  # unknown; the next turn deals with it

    def _may_claim(self) -> bool:
        return not self._stopping.is_set() and self._lease.is_safe

    def _lease_lost(self) -> None:
        self._claimer.lose_lease()
        self._wakeup.set()

    def _notified(self, notification: Notification) -> None:
        if self._claimer.notified(notification):
            self._wakeup.set()
