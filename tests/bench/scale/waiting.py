"""The cost of workers while a growing number of instances waits: memory and CPU of a worker, and of the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pgflow.bench import machine
from pgflow.bench.environment import BenchRun, Plan
from pgflow.bench.flows import Load, Single
from pgflow.bench.result import percentiles
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import bench
from tests.bench.plot import Chart, Series
from tests.bench.scale.stock import fill, tidy

__all__ = ["waiting"]

SETTLE_SECONDS = 3.0
STARTS = 60
PAUSE = 0.05


def waiting(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None], *, seconds: float) -> list[Chart]:
    """Run one worker that has nothing to do, then start something twenty times a second."""
    memory, cpu, server, late = [], [], [], []
    there = 0
    for size in sizes:
        with connect(bench_run.app.dsn, "migrate") as conn:
            fill(conn, "parked", size - there)
            tidy(conn)
            here = machine.local_server(conn.info, run(conn, bench.backend(bench_run.app.schema)))
            assert here is not None
        there = size
        with bench_run.workers(Plan(workers=1, concurrency=10), level="info") as processes:
            processes.wait_until_ready()
            time.sleep(SETTLE_SECONDS)
            (pid,) = processes.pids
            began, used, theirs = time.monotonic(), machine.seconds_of(pid), here.seconds()
            time.sleep(seconds)
            took = time.monotonic() - began
            cpu.append((size, 100 * (machine.seconds_of(pid) - used) / took))
            server.append((size, 100 * (here.seconds() - theirs) / took))
            marked = bench_run.trace.read().steps
            for number in range(STARTS):
                bench_run.app.start(Single, f"{size}-{number}", Load(sent=time.monotonic_ns()))
                time.sleep(PAUSE)
            bench_run.wait_for_steps(marked + STARTS, processes)
            memory.append((size, machine.resident_bytes(pid) / 1e6))
        bench_run.app.close()
        marks = bench_run.trace.events()[-STARTS:]
        late.append((size, percentiles("", [event.at - event.key for event in marks]).values["p50"]))
        report(
            f"{size:,} wait: worker {memory[-1][1]:.0f} MB, {cpu[-1][1]:.2f}% CPU; server {server[-1][1]:.2f}% CPU; "
            f"start → first step {late[-1][1]:.2f} ms"
        )
    across = "instances that wait"
    return [
        Chart(
            "Memory of a worker, with a growing number of instances waiting",
            across,
            "MB resident",
            [Series("worker", memory)],
        ),
        Chart(
            "CPU while idle, with a growing number waiting",
            across,
            "% of a core",
            [Series("worker", cpu), Series("server", server)],
        ),
        Chart(
            "Start → first step, with a growing number of waiting",
            across,
            "ms, median",
            [Series("start → first step", late)],
        ),
    ]
