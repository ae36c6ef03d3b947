"""Where a benchmark runs: a server, a schema with empty tables for each run, and worker processes."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from pgflow.app import Pgflow
from pgflow.bench import flows, trace
from pgflow.bench.machine import local_server
from pgflow.bench.meter import Meter
from pgflow.bench.scratch_schema import ScratchSchema
from pgflow.bench.trace import TraceReader
from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import Statement, run
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import PgflowError
from pgflow.store import bench, doctor

__all__ = [
    "QUEUE",
    "BenchEnvironment",
    "BenchRun",
    "Plan",
    "Progress",
    "round_trips",
    "server_settings",
    "sigterm_as_interrupt",
]

T = TypeVar("T")

APP = "pgflow.bench.flows:app"
QUEUE = "default"
STALL_SECONDS = 60.0  # a run fails when no step begins for so long
POLL_SECONDS = 0.002
MAX_SHARED_BUFFERS = 1024  # megabytes
ROUND_TRIPS = 50  # to measure how long one takes


class Progress(Protocol):
    """What shows how far a benchmark is."""

    def begin(self, label: str, length: int) -> None:
        """Start a new bar."""

    def advance(self, number: int) -> None:
        """Add to the number of finished units."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: worker processes, the concurrency of each, and how many instances one call starts.

    A run has `count` instances (None: the scenario's default), or as many as take about `seconds`.
    """

    workers: int = 2
    concurrency: int = 500
    batch: int = 1000
    count: int | None = None
    seconds: float | None = None


class BenchEnvironment:
    """A database to measure on, as a context manager: the one at `dsn`, or a throwaway one when that is empty.

    All measured sessions have the application name `name`. Raises as `ScratchSchema` does.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self.schema = schema
        self.name = f"pgflow:bench:{os.getpid()}"
        self.is_throwaway = not dsn
        self._given = dsn
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.is_throwaway:
                self._given = stack.enter_context(EmbeddedPostgres(settings=server_settings())).dsn
            self.dsn = compose({**parse(self._given), "application_name": self.name})
            self._scratch = stack.enter_context(ScratchSchema(self.dsn, self.schema))
            self.recreate()  # the clock is read through a function of the schema
            with connect(self._given) as conn:
                self.settings = run(conn, bench.settings(self.schema))
                self.round_trip_seconds, self.clock_ahead = _clock(conn, self.schema)
                self.server = local_server(conn.info, run(conn, bench.backend(self.schema)))
            self._stack = stack.pop_all()
        return self

    @contextmanager
    def new_run(self, progress: Progress) -> Iterator[BenchRun]:
        """Provide a run on empty tables."""
        self.recreate()
        with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as name:
            folder = Path(name)
            app = Pgflow(self.dsn, flows.WORKFLOWS, flows.TASKS, schema=self.schema)
            meter = Meter(self._given, self.schema, self.name)
            try:
                yield BenchRun(self, app, folder, TraceReader(folder), meter, progress)
            finally:
                meter.close()
                app.close()

    def recreate(self) -> None:
        """Create the schema again, with empty tables; no session may use it at that moment."""
        self._scratch.recreate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One run: an app on empty tables, a folder for trace files, and a meter."""

    environment: BenchEnvironment
    app: Pgflow
    folder: Path
    trace: TraceReader
    meter: Meter
    progress: Progress

    @contextmanager
    def workers(self, plan: Plan, *options: str, level: str = "warning") -> Iterator[WorkerProcesses]:
        """Run workers inside the `with` block."""
        given = ("--queue", f"{QUEUE}={plan.concurrency}", "--log-level", level, "--json", *options)
        with WorkerProcesses(
            self.app.dsn,
            self.folder,
            app=APP,
            count=plan.workers,
            options=given,
            schema=self.app.schema,
            environment={trace.FOLDER: str(self.folder)},
        ) as processes:
            yield processes

    def query(self, statement: Statement[T]) -> T:
        """Run a statement that does not count as cost."""
        return self.meter.query(statement)

    def wait(self, is_done: Callable[[], bool], processes: WorkerProcesses, *, pause: float = POLL_SECONDS) -> None:
        """Wait for a condition. Raises when a worker ends, or when no step begins for `STALL_SECONDS`."""
        seen, changed = self.trace.read().steps, time.monotonic()
        while not is_done():
            processes.check()
            now, steps = time.monotonic(), self.trace.read().steps
            if steps != seen:
                self.progress.advance(steps - seen)
                seen, changed = steps, now
            elif now - changed > STALL_SECONDS:
                raise PgflowError(
                    f"no step began for {STALL_SECONDS:.0f} s", hint="The workers' logs are printed above."
                )
            time.sleep(pause)

    def wait_for_steps(self, number: int, processes: WorkerProcesses) -> None:
        """Wait until so many steps have begun."""
        self.wait(lambda: self.trace.read().steps >= number, processes)

    def wait_for_parked(self, number: int, processes: WorkerProcesses) -> None:
        """Wait until so many jobs are parked."""
        self.wait(lambda: self.query(bench.parked(self.app.schema)) >= number, processes, pause=0.05)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C inside the `with` block, so that it cleans up as well."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def round_trips(processes: WorkerProcesses) -> int:
    """Return the round trips of all workers. Each reports them when it ends, if it ever became ready."""
    return sum(int(json.loads(report)["round_trips"]) for report in processes.printed if report)


def server_settings() -> dict[str, str]:
    """Return settings of a fast, durable throwaway server: a quarter of the memory for shared buffers, at most 1 GB."""
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "shared_buffers": f"{min(MAX_SHARED_BUFFERS, megabytes // 4)}MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "max_connections": "200",
    }


def _clock(conn: Connection, schema: str) -> tuple[float, float]:
    """Return the shortest round trip, and how far the database's clock is ahead of our monotonic one, in seconds."""
    measured = []
    for _ in range(ROUND_TRIPS):
        before = time.monotonic()
        database = run(conn, doctor.clock(schema)).time
        after = time.monotonic()
        measured.append((after - before, database - (before + after) / 2))
    return min(measured)
