"""How long a claim takes as the work grows: ready jobs, scheduled jobs, queues, claimers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from psycopg.errors import LockNotAvailable

from pgflow.bench.environment import BenchRun
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import job
from tests.bench.plot import Chart, Series
from tests.bench.scale.hand import BATCH, SCHEMA, median_ms, opened
from tests.bench.scale.stock import fill, tidy

__all__ = ["claimers", "queues", "ready", "scheduled"]

TIMES = 50
STAGED = 1000
READY = 100_000
DEEP = 60  # jobs in each queue, at least


def ready(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None]) -> list[Chart]:
    """A claim of a hundred jobs, and of one, with a growing number of ready jobs."""
    hundred, one = [], []
    with connect(bench_run.app.dsn, "migrate") as conn, opened(bench_run.app.dsn) as hand:
        there = 0
        for size in sizes:
            fill(conn, "ready", size - there)
            there = size
            tidy(conn)
            hundred.append((size, median_ms(hand.time(hand.claim, min(TIMES, size // BATCH // 4)))))
            one.append((size, median_ms(hand.time(lambda: hand.claim({"default": 1}), TIMES))))
            hand.put_back()
            report(f"{size:,} ready: claim of 100 takes {hundred[-1][1]:.2f} ms, of one {one[-1][1]:.2f} ms")
    lines = [Series("claim of 100", hundred), Series("claim of 1", one)]
    return [Chart("Claim, with a growing number of ready jobs", "ready jobs", "ms, median", lines)]


def scheduled(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None]) -> list[Chart]:
    """A claim, and the search for due jobs, with a growing number of scheduled jobs."""
    claims, looks = [], []
    with connect(bench_run.app.dsn, "migrate") as conn, opened(bench_run.app.dsn) as hand:
        fill(conn, "ready", min(READY, max(sizes)))
        there = 0
        for size in sizes:
            fill(conn, "scheduled", size - there)
            there = size
            tidy(conn)
            claims.append((size, median_ms(hand.time(hand.claim, min(TIMES, READY // BATCH // 10), warm=3))))
            looks.append((size, median_ms(hand.time(lambda: run(hand.conn, job.stage(SCHEMA, STAGED)), TIMES))))
            hand.put_back()
            report(
                f"{size:,} scheduled: claim of 100 {claims[-1][1]:.2f} ms, search for due jobs {looks[-1][1]:.2f} ms"
            )
    lines = [Series("claim of 100", claims), Series("search for due jobs", looks)]
    return [Chart("Claim, with a growing number of scheduled jobs", "scheduled jobs", "ms, median", lines)]


def queues(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None]) -> list[Chart]:
    """A claim by a worker of one queue, and by a worker of all queues, with a growing number of queues."""
    one, every = [], []
    for size in sizes:
        bench_run.environment.recreate()
        with connect(bench_run.app.dsn, "migrate") as conn, opened(bench_run.app.dsn) as hand:
            fill(conn, "ready", max(READY // 10, DEEP * size), queues=size)
            tidy(conn)
            served = {f"q{number}": max(1, BATCH // size) for number in range(size)}
            one.append((size, median_ms(hand.time(lambda: hand.claim({"q0": 1}), 20, warm=5))))
            every.append((size, median_ms(hand.time(lambda served=served: hand.claim(served), 20, warm=5))))  # type: ignore[misc]
            took = max(BATCH, size)
            report(
                f"{size:,} queues: claim of one from one {one[-1][1]:.2f} ms, of {took} from all {every[-1][1]:.2f} ms"
            )
    per = [(size, value / max(1, size / BATCH)) for size, value in every]
    lines = [Series("one job of one queue", one), Series("100 jobs of all queues", per)]
    return [Chart("Claim, with a growing number of queues", "queues that have work", "ms, median", lines)]


def claimers(
    bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None], *, seconds: float, stock: int
) -> list[Chart]:
    """How many jobs a growing number of claimers claim in total, a hundred at a time."""
    rates, waits = [], []
    with connect(bench_run.app.dsn, "migrate") as conn:
        fill(conn, "ready", stock)
        tidy(conn)
    for size in sizes:
        rate, took = _race(bench_run.app.dsn, size, seconds)
        rates.append((size, rate))
        waits.append((size, took))
        report(f"{size} claimers: {rate:,.0f} jobs/s in all, a claim of 100 takes {took:.1f} ms")
    return [
        Chart(
            "Jobs claimed, with a growing number of claimers", "claimers", "jobs/s in all", [Series("in all", rates)]
        ),
        Chart(
            "A claim of 100, with a growing number of claimers",
            "claimers",
            "ms, median",
            [Series("claim of 100", waits)],
        ),
    ]


def _race(dsn: str, number: int, seconds: float) -> tuple[float, float]:
    """Let so many claimers run in parallel; return the jobs a second, and the median of a claim."""
    took: list[float] = []
    jobs: list[int] = []
    gate = threading.Barrier(number + 1)
    over = threading.Event()

    def claim() -> None:
        with opened(dsn) as hand:
            hand.claim({"nothing": 1})  # prepared
            gate.wait()
            while not over.is_set():
                began = time.perf_counter()
                try:
                    found = hand.claim()
                except LockNotAvailable:  # `skip locked` waits for a row that changes during the scan
                    continue
                finally:
                    took.append(1000 * (time.perf_counter() - began))
                jobs.append(len(found))
                assert found, "there was not enough to claim"

    threads = [threading.Thread(target=claim) for _ in range(number)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return sum(jobs) / (time.perf_counter() - began), median_ms(took)
