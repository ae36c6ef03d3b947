"""How a claim fares while tokens are drained: beside a long transaction, and on a plan that was made too early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import psycopg

from pgflow.cli.bench.ground import Field
from pgflow.store.connect import Connection, connect
from tests.bench.plot import Chart, Series
from tests.bench.scale.hand import BATCH, Hand, median_ms, opened
from tests.bench.scale.stock import fill, tidy

__all__ = ["horizon", "planned"]

POINTS = 10
ACROSS = "tokens done since"
UNIT = "ms, median"
Before = Callable[[Connection, ExitStack], None]


def horizon(field: Field, sizes: Sequence[int], say: Callable[[str], None]) -> list[Chart]:
    """Drain so many tokens, a hundred at a time, without a long transaction beside it and with one."""
    (size,) = sizes

    def pin(conn: Connection, stack: ExitStack) -> None:
        old = stack.enter_context(psycopg.connect(field.app.dsn))
        old.execute("set idle_in_transaction_session_timeout = 0")
        old.commit()
        old.execute("set transaction isolation level repeatable read")
        old.execute("select")  # from now on it sees what is there now, and all of that stays

    lines = [_drain(field, size, say, "free"), _drain(field, size, say, "pinned", pin)]
    return [Chart("Claim of 100, while an old transaction keeps dead rows", ACROSS, UNIT, lines)]


def planned(field: Field, sizes: Sequence[int], say: Callable[[str], None]) -> list[Chart]:
    """Drain tokens where all tables were looked at by the planner, the results' while there were none.

    A worker's statements are planned once, at their first use, and anew when somebody analyzes again.
    """
    (size,) = sizes

    def analyze(conn: Connection, stack: ExitStack) -> None:
        conn.execute("vacuum (analyze) pgflow.step_results, pgflow.signals")

    lines = [_drain(field, size, say, "as installed"), _drain(field, size, say, "analyzed while empty", analyze)]
    return [Chart("Claim of 100, planned while there were no results", ACROSS, UNIT, lines)]


def _drain(field: Field, size: int, say: Callable[[str], None], name: str, before: Before | None = None) -> Series:
    field.ground.renew()
    with ExitStack() as stack:
        conn = stack.enter_context(connect(field.app.dsn, "migrate"))
        fill(conn, "ready", size + BATCH)
        tidy(conn)
        if before is not None:
            before(conn, stack)
        hand = stack.enter_context(opened(field.app.dsn))
        points: list[tuple[float, float]] = []
        for number in range(1, POINTS + 1):
            took = [_one_batch(hand) for _ in range(size // POINTS // BATCH)]
            points.append((number * len(took) * BATCH, median_ms(took)))
            say(f"{name}, {points[-1][0]:,} done: claim of 100 takes {points[-1][1]:.2f} ms")
        return Series(name, points)


def _one_batch(hand: Hand) -> float:
    began = time.perf_counter()
    rows = hand.claim()
    took = 1000 * (time.perf_counter() - began)
    assert len(rows) == BATCH
    hand.settle(rows)
    return took
