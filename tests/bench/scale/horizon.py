"""How a claim fares while a long transaction keeps every dead row from being removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import psycopg

from pgflow.cli.bench.ground import Field
from pgflow.store.connect import connect
from tests.bench.plot import Chart, Series
from tests.bench.scale.hand import BATCH, Hand, median_ms, opened
from tests.bench.scale.stock import fill, tidy

__all__ = ["horizon"]

POINTS = 10


def horizon(field: Field, sizes: Sequence[int], say: Callable[[str], None]) -> list[Chart]:
    """Drain so many tokens, a hundred at a time, without a long transaction beside it and with one."""
    (size,) = sizes
    lines = [
        Series(name, _drain(field, size, is_pinned, say)) for name, is_pinned in (("free", False), ("pinned", True))
    ]
    return [
        Chart(
            "Claim of 100, while an old transaction keeps dead rows", "tokens done since it began", "ms, median", lines
        )
    ]


def _drain(field: Field, size: int, is_pinned: bool, say: Callable[[str], None]) -> list[tuple[float, float]]:
    field.ground.renew()
    with ExitStack() as stack:
        conn = stack.enter_context(connect(field.app.dsn, "migrate"))
        fill(conn, "ready", size + BATCH)
        tidy(conn)
        if is_pinned:
            old = stack.enter_context(psycopg.connect(field.app.dsn))
            old.execute("set idle_in_transaction_session_timeout = 0")
            old.commit()
            old.execute("set transaction isolation level repeatable read")
            old.execute("select")  # from now on it sees what is there now, and all of that stays
        hand = stack.enter_context(opened(field.app.dsn))
        points, done = [], 0
        for _ in range(POINTS):
            took: list[float] = []
            while len(took) < size // POINTS // BATCH:
                took.append(_one_batch(hand))
                done += BATCH
            points.append((float(done), median_ms(took)))
            say(f"{'pinned' if is_pinned else 'free'}, {done:,} done: claim of 100 takes {points[-1][1]:.2f} ms")
        return points


def _one_batch(hand: Hand) -> float:
    began = time.perf_counter()
    rows = hand.claim()
    took = 1000 * (time.perf_counter() - began)
    assert len(rows) == BATCH
    hand.settle(rows)
    return took
