"""Where the time of a step goes: `python -m tests.bench.profile`.

A worker in this process drains a backlog. It is sampled each half millisecond of its CPU time, or at the kernel's timer
resolution, and the server logs how long each statement took. Both are reported as microseconds a step: by file for the
worker, where time in a library counts for the calling file of ours; by statement for the server. The worker's shares
are only proportional: sampling has a cost, and a long call in C counts for the line after it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import click
import psycopg

from pgflow import Pgflow, Workflow
from pgflow.bench import flows, throughput, trace
from pgflow.bench.environment import QUEUE, server_settings
from pgflow.bench.machine import seconds_of
from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations import migrate

__all__ = ["Sampler", "command", "durations", "profile"]

WORK: Mapping[str, type[Workflow[flows.Load]] | None] = {  # None: tasks
    "tasks": None,
    "single": flows.Single,
    "chain": flows.Chain,
    "fan": flows.Fan,
}
INTERVAL = 0.0005
BATCH = 1000
LOGGED = {"log_min_duration_statement": "0", "log_parameter_max_length": "0"}
OURS = re.compile(r"/(pgflow/(?:core|worker|store|bench)/[\w/]+\.py)$")
LIBRARIES = re.compile(r"/(psycopg|asyncio|selectors)\b")
# Our statements begin with a comment that describes them.
DURATION = re.compile(r"duration: ([\d.]+) ms  (?:execute|bind|parse) [^:]*: -- ([^.:;\n]*)")
BACKEND = "select pid from pg_stat_activity where application_name = 'pgflow:worker'"


class Sampler:
    """Samples the main thread, at most each half millisecond of CPU time, inside a `with` block."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def __enter__(self) -> Sampler:
        self._before = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        return self

    def __exit__(self, *error: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        self.seen[place(frame)] += 1


def place(frame: FrameType | None) -> str:
    """Return the file of ours that a frame is in or was called from; else the name of the library."""
    while frame is not None:
        file = frame.f_code.co_filename
        if found := OURS.search(file) or LIBRARIES.search(file):
            return found[1]
        frame = frame.f_back
    return "else"


def durations(log: str) -> dict[str, float]:
    """Add up how many milliseconds each statement took, by its description."""
    total: dict[str, float] = defaultdict(float)
    for took, purpose in DURATION.findall(log):
        total[purpose.strip()] += float(took)
    return dict(total)


def profile(workflow: type[Workflow[flows.Load]] | None, count: int, concurrency: int) -> str:
    """Let a worker drain so many instances, or tasks without a workflow; return the cost as Markdown."""
    with marked(), EmbeddedPostgres(settings={**server_settings(), **LOGGED}) as server:
        with connect(server.dsn, "migrate") as conn:
            migrate.up(conn)
        app = Pgflow(server.dsn, flows.WORKFLOWS, flows.TASKS)
        if workflow is None:
            throughput.fill_tasks(app, flows.count, count, BATCH)
        else:
            throughput.fill(app, workflow, count, BATCH)
        with connect(server.dsn, "migrate") as conn:
            conn.execute("vacuum analyze")
        worker, before = app.worker({QUEUE: concurrency}, drain=True), len(server.log)
        with watched(server.dsn) as backend, Sampler() as sampler:
            began, busy = time.perf_counter(), time.thread_time()
            asyncio.run(worker.run())
            took, busy = time.perf_counter() - began, time.thread_time() - busy
        app.close()
        spent = durations(server.log[before:])
    steps, name = (worker.stats.tasks, "Tasks") if workflow is None else (worker.stats.steps, workflow.name)
    each = {"worker's processor": busy, "backend's": backend[0]}
    costs = " and ".join(f"{seconds / steps * 1e6:.1f} µs of the {whose}" for whose, seconds in each.items())
    told = [f"{name}: {steps:,} steps of {count:,} instances, {concurrency} at once, {steps / took:,.0f}/s."]
    told += [f"A step takes {costs}, and {worker.stats.round_trips / steps:.4f} round trips."]
    total = sum(sampler.seen.values())
    shares = {name: busy / steps * 1e6 * seen / total for name, seen in sampler.seen.most_common()}
    told += table("the worker's processor", shares)
    told += table("the server's statements, without commits", {name: ms / steps * 1e3 for name, ms in spent.items()})
    return "\n".join(told)


def table(title: str, rows: Mapping[str, float], least: float = 0.1) -> list[str]:
    """Return rows of microseconds as a table, the largest first, without negligible ones."""
    told = sorted(((name, us) for name, us in rows.items() if us >= least), key=lambda row: -row[1])
    return ["", f"| {title} | µs a step |", "|---|--:|", *(f"| {name} | {us:.1f} |" for name, us in told)]


@contextmanager
def marked() -> Iterator[None]:
    """Provide a folder for trace files."""
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as folder:
        os.environ[trace.FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[trace.FOLDER]


@contextmanager
def watched(dsn: str) -> Iterator[list[float]]:
    """Yield a list that finally contains the CPU seconds of the worker's backend."""
    used, is_over = [0.0], threading.Event()

    def watch() -> None:
        pid = 0
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not is_over.wait(0.01):
                if not pid:
                    pid = next((row[0] for row in conn.execute(BACKEND)), 0)
                used[0] = max(used[0], seconds_of(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        is_over.set()
        thread.join()


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(WORK)))
@click.option("--count", type=click.IntRange(1), default=20_000, help="Steps, about.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=500, help="Steps that run at once.")
def command(names: tuple[str, ...], count: int, concurrency: int) -> None:
    """Show where the time of a step goes: in the worker by file, in the server by statement."""
    for name in names or WORK:
        workflow = WORK[name]
        nodes = 1 if workflow is None else len(workflow.graph.nodes)
        click.echo(profile(workflow, max(1, count // nodes), concurrency) + "\n")


if __name__ == "__main__":
    command(prog_name="python -m tests.bench.profile")
