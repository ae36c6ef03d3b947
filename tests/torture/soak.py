"""Whether a worker stays as small as it was while it works for hours, and rests when there is nothing to do.

`python -m tests.torture.soak` gives one worker process a steady, moderate load of mixed shapes (`steady.py`), on a
durable server of its own. Every few seconds its memory is read, including its heartbeat process, and that of its
server processes. In the end the median of the last tenth of the time is compared with that of the second tenth: the
first one is there to warm up. Then the load stops, and for a minute all that the idle worker asks on any of its
connections is counted, by the server's own log: statements, and the round trips that they come in, of which each is a
transaction; so is the CPU that it uses. The exit code is 1 when it uses more than its budget.

Of a server process only the memory is read that is its own: what it has touched of the shared buffers counts as
resident, too, and grows until they are full.
"""

from __future__ import annotations

import itertools
import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from pgflow.app import Pgflow
from pgflow.bench import machine, trace
from pgflow.bench.environment import server_settings, sigterm_as_interrupt
from pgflow.bench.flows import Load, Signalled
from pgflow.bench.trace import TraceReader
from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.cli.output import table
from pgflow.database.connect import Connection, connect
from pgflow.database.dsn import compose, parse
from pgflow.database.statement import run
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations import migrate
from pgflow.store import job
from tests.torture.steady import TURN, WORKFLOWS

__all__ = ["BUDGETS", "Figures", "Plan", "Sample", "broken", "command", "growth", "hold"]

APP = "tests.torture.steady:app"
ROOT = Path(__file__).parents[2]
WORKER = "soak"  # what all sessions of the worker are called
SIGNAL_SECONDS = 0.5  # after the start
DRAIN_SECONDS = 60.0
SETTLE_SECONDS = 3.0  # between the last step and idleness
GLANCE_SECONDS = 0.005
ROWS = 20  # of the table, about

BACKENDS = "select pid from pg_stat_activity where application_name = %s"
TOKENS = "select count(*) from pgflow.jobs where state in ('ready', 'running')"
LOG_ALL = ("alter system set log_statement = 'all'", "select pg_reload_conf()")
# Which transaction, and that it asks something; what comes in one round trip is one.
PREFIX = "[%a %v] "
ASKED = re.compile(rf"^\[{WORKER} (\S+)\] LOG:  (?:statement|execute)\b", re.MULTILINE)

BUDGETS: Mapping[str, tuple[str, float | None, str]] = {
    "worker_growth": ("memory of the worker, growth", 5.0, "%"),
    "backends_growth": ("memory of its server processes, growth", 5.0, "%"),
    "trips": ("round trips of the idle worker", 3.0, "per s"),
    "statements": ("statements in them", None, "per s"),
    "cpu": ("CPU of the idle worker", 1.0, "% of a core"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, with how many starts a second, for how long idle, and how many seconds from sample to sample."""

    seconds: float = 1800.0
    rate: float = 50.0
    idle: float = 60.0
    every: float = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was `at` so many seconds: bytes of the worker and its server processes, steps done, queue length."""

    at: float
    worker: int
    backends: int
    steps: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What was used: growth in percent, round trips and statements a second, and percent of a core."""

    worker_growth: float
    backends_growth: float
    trips: float
    statements: float
    cpu: float


class Caller:
    """Starts instances of all shapes in turn, and sends those that wait for a signal theirs."""

    def __init__(self, app: Pgflow, rate: float) -> None:
        self._app = app
        self._rate = rate
        self._began = time.monotonic()
        self._unsignalled: deque[tuple[float, str]] = deque()
        self.started = 0

    def advance(self) -> None:
        """Start or signal the next instance."""
        if self.started < (time.monotonic() - self._began) * self._rate:
            workflow, value = TURN[self.started % len(TURN)], str(self.started)
            self._app.start(workflow, value, Load())
            self.started += 1
            if workflow is Signalled:
                self._unsignalled.append((time.monotonic() + SIGNAL_SECONDS, value))
        else:
            time.sleep(GLANCE_SECONDS)
        self._signal(time.monotonic())

    def finish(self) -> None:
        """Send the signals that are left."""
        self._signal(float("inf"))

    def _signal(self, now: float) -> None:
        while self._unsignalled and self._unsignalled[0][0] <= now:
            self._app.resume(Signalled, self._unsignalled.popleft()[1], "go", {"sent": 1})


class Site:
    """The server, the worker on it, and what is read of both."""

    def __init__(self, server: EmbeddedPostgres, watch: Connection, processes: WorkerProcesses, folder: Path) -> None:
        self.server = server
        self.watch = watch
        self.processes = processes
        self._tally = TraceReader(folder)
        self.began = time.monotonic()

    def sample(self) -> Sample:
        """Read it all. Raises when the worker has ended."""
        self.processes.check()
        ((waiting,),) = self.watch.execute(TOKENS).fetchall()
        return Sample(
            at=time.monotonic() - self.began,
            worker=sum(map(machine.resident_bytes, self.family)),
            backends=sum(machine.own_bytes(pid) for (pid,) in self.watch.execute(BACKENDS, [WORKER])),
            steps=self._tally.read().steps,
            waiting=waiting,
        )

    @property
    def family(self) -> list[int]:
        """The worker's process ids: its own, and that of the process that keeps its lease."""
        (pid,) = self.processes.pids
        return [pid, *machine.children(pid)]

    def drain(self) -> None:
        """Wait until everything has ended. Raises when it does not come to that."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while not run(self.watch, job.drained("pgflow", ["default"])):
            self.processes.check()
            if time.monotonic() > deadline:
                raise click.ClickException(f"not everything came to its end within {DRAIN_SECONDS:.0f} s")
            time.sleep(0.1)

    def rest(self, seconds: float) -> tuple[float, float, float]:
        """Let it be idle; returns its round trips and its statements a second, and its percents of a core."""
        time.sleep(SETTLE_SECONDS)
        for statement in LOG_ALL:
            self.watch.execute(statement)
        said, used, since = len(self.server.log), self._used(), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - since
        asked = ASKED.findall(self.server.log[said:])
        return len(set(asked)) / passed, len(asked) / passed, 100 * (self._used() - used) / passed

    def _used(self) -> float:
        return sum(map(machine.seconds_of, self.family))


@contextmanager
def opened() -> Iterator[tuple[Site, Pgflow]]:
    """Give a worker on a server of its own, and an app to call it by."""
    settings = {**server_settings(), "log_line_prefix": PREFIX}
    with (
        tempfile.TemporaryDirectory(prefix="pgflow-soak-") as name,
        EmbeddedPostgres(settings=settings) as server,
        connect(server.dsn, "watch") as watch,
    ):
        migrate.up(watch)
        folder = Path(name)
        environment = {trace.FOLDER: name, "PYTHONPATH": str(ROOT)}
        options = ["--queue", "default=50", "--log-level", "error"]
        dsn = compose({**parse(server.dsn), "application_name": WORKER})
        app = Pgflow(server.dsn, WORKFLOWS)
        try:
            app.register()
            with WorkerProcesses(dsn, folder, app=APP, count=1, options=options, environment=environment) as processes:
                yield Site(server, watch, processes, folder), app
        finally:
            app.close()


def hold(plan: Plan) -> Iterator[Sample | Figures]:
    """Hold a soak: yields each sample when it is taken, and in the end the figures."""
    with opened() as (site, app):
        caller = Caller(app, plan.rate)
        samples: list[Sample] = []
        for number in itertools.count(1):
            due = min(plan.seconds, number * plan.every)
            while time.monotonic() - site.began < due:
                caller.advance()
            samples.append(site.sample())
            yield samples[-1]
            if due >= plan.seconds:
                break
        caller.finish()
        site.drain()
        app.close()
        yield site.sample()
        trips, statements, cpu = site.rest(plan.idle)
    yield Figures(
        worker_growth=growth([each.worker for each in samples]),
        backends_growth=growth([each.backends for each in samples]),
        trips=trips,
        statements=statements,
        cpu=cpu,
    )


def growth(sizes: Sequence[int]) -> float:
    """By how many percent the last tenth is larger than the second one; medians, the first tenth is the warm-up."""
    tenth = max(1, len(sizes) // 10)
    before, after = median(sizes[tenth : 2 * tenth] or sizes), median(sizes[-tenth:])
    return 100 * (after / before - 1) if before else 0.0


def broken(figures: Figures) -> list[str]:
    """The names of what has used more than its budget."""
    return [name for name, (_, most, _) in BUDGETS.items() if most is not None and getattr(figures, name) >= most]


@click.command(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    help="Hold one worker under a steady load, then let it be idle, and see what it uses.",
)
@click.option("--minutes", type=click.FloatRange(0.05, 7 * 24 * 60), default=30.0, help="For how long it works.")
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=50.0, help="Instances that are started a second.")
@click.option("--idle", type=click.FloatRange(1, 3600), default=60.0, help="For how many seconds it is idle.")
@click.option("--every", type=click.FloatRange(0.1, 600), default=5.0, help="Seconds from sample to sample.")
def command(minutes: float, rate: float, idle: float, every: float) -> None:
    """Hold a soak, print it as it goes on, and then judge it."""
    plan = Plan(60 * minutes, rate, idle, every)
    line = "{:>8}  {:>10}  {:>12}  {:>10}  {:>6}"
    click.echo(line.format("SECONDS", "WORKER, MB", "BACKENDS, MB", "STEPS DONE", "QUEUE"))
    shown = max(1, round(plan.seconds / plan.every / ROWS))
    with sigterm_as_interrupt():
        for number, found in enumerate(hold(plan), start=1):
            if isinstance(found, Figures):
                click.echo("\n" + format_figures(found))
                sys.exit(1 if broken(found) else 0)
            if number % shown == 0 or number == 1:
                worker, backends = (f"{size / 1e6:.2f}" for size in (found.worker, found.backends))
                click.echo(line.format(f"{found.at:.0f}", worker, backends, found.steps, found.waiting))
                sys.stdout.flush()


def format_figures(figures: Figures) -> str:
    """Return the figures with their budgets, as a table."""
    over = broken(figures)
    rows = [
        (title, f"{getattr(figures, name):.2f} {unit}", most and f"< {most:g}", "BROKEN" if name in over else "")
        for name, (title, most, unit) in BUDGETS.items()
    ]
    return table(["FIGURE", "SEEN", "BUDGET", ""], rows)


if __name__ == "__main__":
    command(prog_name="python -m tests.torture.soak")
