"""What a step costs: a fraction of a commit and of a round trip, two rows, and no work for the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from datetime import timedelta
from threading import Event, Lock
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from tests.conftest import Server
from tests.worker.db_helpers import leftovers, one, rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

INSTANCES = 600
STEPS = 5 * INSTANCES
PATIENCE = 120.0
NEVER = timedelta(hours=1)
ALONE: dict[str, Any] = {"lease": NEVER, "sweep": NEVER, "retention": None}  # a busy machine adds no statements
TABLES = ("step_results", "jobs", "instances", "signals")


class Finish:
    """Counts completed instances in the worker: a query would add to the costs."""

    def __init__(self) -> None:
        self.reached = Event()
        self._left = INSTANCES
        self._lock = Lock()

    def count(self) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self.reached.set()


FINISH: list[Finish] = []


@step
def one_(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"n": 1})


@step
async def two(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"n": 2})


@step
def three(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"n": 3})


@step
async def four(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done", {"n": 4})


@step
async def five(ctx: Context[dict[str, Any]]) -> Ok:
    FINISH[-1].count()
    return Ok("done", {"n": 5})


class Line(Workflow[dict[str, Any]], unique=Unique("line")):
    """Five quick steps in a row."""

    initial = one_
    transitions = {
        one_: {"done": two},
        two: {"done": three},
        three: {"done": four},
        four: {"done": five},
        five: {"done": Done},
    }


WORKFLOWS = (Line,)


@pytest.fixture
def books(server: Server) -> Iterator[Connection]:
    """A connection to another database, from where looking costs nothing here."""
    with connect(server.dsn, "test") as conn:
        yield conn


def flushed(look: Any) -> Any:
    """Read statistics when they have come to rest: each backend reports when it ends, or after a while."""
    seen: list[Any] = []

    def is_at_rest() -> bool:
        seen.append(look())
        return len(seen) > 5 and all(each == seen[-1] for each in seen[-5:])

    until(is_at_rest, "the statistics' rest", pause=0.1)
    return seen[-1]


def commits(books: Connection, database: str) -> int:
    return int(flushed(lambda: one(books, "select xact_commit from pg_stat_database where datname = %s", database)))


def writes(dsn: str) -> Mapping[str, tuple[int, int, int, int]]:
    """Rows inserted, updated, of these in place, and deleted, by table."""
    query = """select relname, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del from pg_stat_user_tables
        where schemaname = 'pgflow' and relname = any(%s)"""

    def look() -> dict[str, tuple[int, int, int, int]]:
        with connect(dsn, "test") as conn:
            return {name: (*numbers,) for name, *numbers in rows(conn, query, list(TABLES))}

    counted: Mapping[str, tuple[int, int, int, int]] = flushed(look)
    return counted


def test_a_step_costs_a_tenth_of_a_commit_and_of_a_round_trip_at_most_and_two_rows(
    app: Pgflow, dsn: str, books: Connection
) -> None:
    app.close()
    with connect(dsn, "test") as conn:
        database = str(one(conn, "select current_database()"))
    Line.start_many([(f"v{number}", {"n": number}) for number in range(INSTANCES)])
    app.close()  # its backends end, and report
    FINISH.append(Finish())
    rows_before, before = writes(dsn), commits(books, database)

    with Inside(app, {"default": 100}, **ALONE) as inside:
        assert FINISH[-1].reached.wait(PATIENCE)
    stats = inside.worker.stats

    spent = commits(books, database) - before
    rows_after = writes(dsn)
    written = {
        table: tuple(after - earlier for after, earlier in zip(rows_after[table], rows_before[table], strict=True))
        for table in TABLES
    }
    figures = f"{spent} commits, {stats.round_trips} round trips, (inserted, updated, in place, deleted): {written}"
    with connect(dsn, "test") as conn:
        assert dict(rows(conn, "select status, count(*) from pgflow.instances group by status")) == {
            "completed": INSTANCES
        }
        assert leftovers(conn) == {}
    print(figures)
    assert stats.steps == STEPS, figures
    assert 0 < stats.round_trips <= 0.1 * STEPS, figures
    assert 0 < spent <= 0.1 * STEPS, figures
    # One result is inserted and one job updated for each step; and an instance is written once, at its end.
    assert written["step_results"] == (STEPS, 0, 0, 0), figures
    inserted, updated, in_place, deleted = written["jobs"]
    assert (inserted, deleted) == (0, INSTANCES), figures
    assert updated == STEPS, figures  # the first claim, and the move to each further step; the last step deletes
    assert in_place >= 0.8 * (STEPS - INSTANCES), figures  # a claim changes an indexed column, a move does not
    assert written["instances"][:2] == (0, INSTANCES), figures
    assert written["signals"] == (0, 0, 0, 0), figures


def test_the_values_of_a_step_are_freed_without_the_garbage_collector(app: Pgflow) -> None:
    Line.start_many([(f"v{number}", {"n": number}) for number in range(INSTANCES)])
    FINISH.append(Finish())
    gc.collect()
    gc.disable()
    try:
        with Inside(app, {"default": 100}, **ALONE) as inside:
            assert FINISH[-1].reached.wait(PATIENCE)
        found = gc.collect()
    finally:
        gc.enable()
    assert inside.worker.stats.steps == STEPS
    assert found < STEPS  # less than one object of each step is part of a reference cycle
