"""How long a worker's claim takes while jobs are drained: beside a long transaction, and with a plan made too early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import psycopg

from pgflow.bench.environment import BenchRun
from pgflow.database.connect import Connection, connect
from tests.bench.plot import Chart, Series
from tests.bench.scale.hand import BATCH, Hand, median_ms, opened
from tests.bench.scale.stock import fill, tidy

__all__ = ["horizon", "planned"]

POINTS = 10
ACROSS = "jobs done since"
UNIT = "ms, median"
Before = Callable[[Connection, ExitStack], None]


def horizon(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None]) -> list[Chart]:
    """Drain so many jobs, a hundred at a time, without and with a long transaction."""
    (size,) = sizes

    def pin(conn: Connection, stack: ExitStack) -> None:
        old = stack.enter_context(psycopg.connect(bench_run.app.dsn))
        old.execute("set idle_in_transaction_session_timeout = 0")
        old.commit()
        old.execute("set transaction isolation level repeatable read")
        old.execute("select")  # from now on its snapshot keeps all current rows

    free, pinned = _drain(bench_run, size, report, "free"), _drain(bench_run, size, report, "pinned", pin)
    return _charts("while an old transaction keeps dead rows", free, pinned)


def planned(bench_run: BenchRun, sizes: Sequence[int], report: Callable[[str], None]) -> list[Chart]:
    """Drain jobs with statistics of all tables, those of the results taken while that table was empty.

    A worker's statements are planned once, at their first use, and again after the next analyze.
    """
    (size,) = sizes

    def analyze(conn: Connection, stack: ExitStack) -> None:
        conn.execute("vacuum (analyze) pgflow.step_results, pgflow.signals")

    installed = _drain(bench_run, size, report, "as installed")
    return _charts(
        "planned while there were no results",
        installed,
        _drain(bench_run, size, report, "analyzed while empty", analyze),
    )


def _charts(when: str, *drains: Sequence[Series]) -> list[Chart]:
    acts = (("Claim", 0), ("Settle", 1))
    return [Chart(f"{act} of 100, {when}", ACROSS, UNIT, [each[number] for each in drains]) for act, number in acts]


def _drain(
    bench_run: BenchRun, size: int, report: Callable[[str], None], name: str, before: Before | None = None
) -> list[Series]:
    bench_run.environment.recreate()
    with ExitStack() as stack:
        conn = stack.enter_context(connect(bench_run.app.dsn, "migrate"))
        fill(conn, "ready", size + BATCH)
        tidy(conn)
        if before is not None:
            before(conn, stack)
        hand = stack.enter_context(opened(bench_run.app.dsn))
        claims: list[tuple[float, float]] = []
        settles: list[tuple[float, float]] = []
        for number in range(1, POINTS + 1):
            took = [_one_batch(hand) for _ in range(size // POINTS // BATCH)]
            done = number * len(took) * BATCH
            claims.append((done, median_ms([claim for claim, _ in took])))
            settles.append((done, median_ms([settle for _, settle in took])))
            report(f"{name}, {done:,} done: claim of 100 takes {claims[-1][1]:.2f} ms, settle {settles[-1][1]:.2f} ms")
        return [Series(name, claims), Series(name, settles)]


def _one_batch(hand: Hand) -> tuple[float, float]:
    began = time.perf_counter()
    rows = hand.claim()
    claimed = time.perf_counter()
    assert len(rows) == BATCH
    hand.settle(rows)
    return 1000 * (claimed - began), 1000 * (time.perf_counter() - claimed)
