"""Where a benchmark runs: a server, a schema of its own that is new for each run, and worker processes."""

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
from typing import Self, TypeVar

from pgflow.app import Pgflow
from pgflow.cli.bench import flows, marks
from pgflow.cli.bench.machine import local_server
from pgflow.cli.bench.marks import Tally
from pgflow.cli.bench.meter import Meter
from pgflow.cli.bench.progress import Progress
from pgflow.cli.bench.scratch_schema import ScratchSchema
from pgflow.cli.processes import Processes
from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import Statement, run
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import PgflowError
from pgflow.store import bench, doctor

__all__ = ["QUEUE", "BenchEnvironment", "BenchRun", "Plan", "orderly", "round_trips", "server_settings"]

T = TypeVar("T")

APP = "pgflow.cli.bench.flows:app"
QUEUE = "default"
STILL_SECONDS = 60.0  # in which something has to happen, or else the run is given up
GLANCE_SECONDS = 0.002
BUFFERS_MOST = 1024  # megabytes
TRIPS = 50  # to find out how long one takes


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: worker processes and how many steps each runs at once, how many instances a call starts.

    `count` instances take part (None: as many as suit the scenario), or as many as take `seconds`, about.
    """

    workers: int = 2
    concurrency: int = 500
    batch: int = 1000
    count: int | None = None
    seconds: float | None = None


class BenchEnvironment:
    """A database to measure on, for the length of a `with`: the one at `dsn`, or when that is empty a throwaway one.

    All sessions of what is measured have the application name `name`. Raises as `ScratchSchema` does.
    """

    def __init__(self, dsn: str, schema: str) -> None:
        self.schema = schema
        self.name = f"pgflow:bench:{os.getpid()}"
        self.is_ours = not dsn
        self._given = dsn
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self.is_ours:
                self._given = stack.enter_context(EmbeddedPostgres(settings=server_settings())).dsn
            self.dsn = compose({**parse(self._given), "application_name": self.name})
            self._trial = stack.enter_context(ScratchSchema(self.dsn, self.schema))
            with connect(self._given) as conn:
                self.settings = run(conn, bench.settings(self.schema))
                self.trip_seconds, self.clock_ahead = _clock(conn, self.schema)
                self.server = local_server(conn.info, run(conn, bench.backend(self.schema)))
            self._stack = stack.pop_all()
        return self

    @contextmanager
    def field(self, progress: Progress) -> Iterator[BenchRun]:
        """Give empty tables, and nothing that was before."""
        self.renew()
        with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as name:
            folder = Path(name)
            app = Pgflow(self.dsn, flows.WORKFLOWS, schema=self.schema)
            meter = Meter(self._given, self.schema, self.name)
            try:
                yield BenchRun(self, app, folder, Tally(folder), meter, progress)
            finally:
                meter.close()
                app.close()

    def renew(self) -> None:
        """Empty the tables; nobody may use them meanwhile."""
        self._trial.renew()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class BenchRun:
    """What one run has: an app on empty tables, a folder for marks, and a meter."""

    ground: BenchEnvironment
    app: Pgflow
    folder: Path
    tally: Tally
    meter: Meter
    progress: Progress

    @contextmanager
    def workers(self, plan: Plan, *options: str, level: str = "warning") -> Iterator[Processes]:
        """Run workers for the length of a `with`."""
        given = ("--queue", f"{QUEUE}={plan.concurrency}", "--log-level", level, "--json", *options)
        environment = {marks.FOLDER: str(self.folder)}
        with Processes(
            self.app.dsn,
            self.folder,
            app=APP,
            count=plan.workers,
            options=given,
            schema=self.app.schema,
            environment=environment,
        ) as processes:
            yield processes

    def look(self, statement: Statement[T]) -> T:
        """Ask the database something that is not to count."""
        return self.meter.look(statement)

    def wait(self, is_so: Callable[[], bool], processes: Processes, *, pause: float = GLANCE_SECONDS) -> None:
        """Wait until something is so. Raises when a worker ends, or when no step begins for a long time."""
        seen, changed = self.tally.read().marks, time.monotonic()
        while not is_so():
            processes.check()
            now, marked = time.monotonic(), self.tally.read().marks
            if marked != seen:
                self.progress.advance(marked - seen)
                seen, changed = marked, now
            elif now - changed > STILL_SECONDS:
                raise PgflowError(
                    f"nothing happened for {STILL_SECONDS:.0f} s", hint="What the workers said stands above."
                )
            time.sleep(pause)

    def until_marked(self, number: int, processes: Processes) -> None:
        """Wait until so many steps have begun."""
        self.wait(lambda: self.tally.read().marks >= number, processes)

    def until_parked(self, number: int, processes: Processes) -> None:
        """Wait until so many tokens wait."""
        self.wait(lambda: self.look(bench.parked(self.app.schema)) >= number, processes, pause=0.05)


@contextmanager
def orderly() -> Iterator[None]:
    """Let SIGTERM end a program as Ctrl-C does, for the length of a `with`: then nothing is left behind either."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def round_trips(processes: Processes) -> int:
    """Add up the round trips of workers that have ended, as they say; one that had not come up yet says nothing."""
    return sum(int(json.loads(said)["round_trips"]) for said in processes.printed if said)


def server_settings() -> dict[str, str]:
    """Return the settings of a throwaway server that is to be fast and safe: a quarter of the memory, 1 GB at most."""
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "shared_buffers": f"{min(BUFFERS_MOST, megabytes // 4)}MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "max_connections": "200",
    }


def _clock(conn: Connection, schema: str) -> tuple[float, float]:
    """Return the shortest round trip, and how far the database's clock is ahead of our monotonic one, in seconds."""
    trips = []
    for _ in range(TRIPS):
        before = time.monotonic()
        there = run(conn, doctor.clock(schema))
        after = time.monotonic()
        trips.append((after - before, there - (before + after) / 2))
    return min(trips)
