"""The wall clock of a worker process jumps while it lives, and its lease and its work go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.migrations.migrate import up
from tests.conftest import Server
from tests.torture.host.clock import WorkerClock
from tests.torture.selftest.clock_flow import ClockFlow, Request
from tests.worker.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[3]
OPTIONS = ("--app", "tests.torture.selftest.clock_flow:app", "--lease", "2", "--poll", "0.2", "--sweep", "0.3")
BUSY = 60.0  # seconds until a step runs on a busy machine: far less than an hour


@pytest.fixture(scope="module")
def conn(server: Server, new_database: Callable[..., str]) -> Iterator[Connection]:
    """A connection to a database with pgflow in it."""
    with connect(new_database(server), "migrate") as conn:
        up(conn)
        yield conn


@pytest.fixture
def app(conn: Connection) -> Iterator[Pgflow]:
    """The app, on that database."""
    app = Pgflow(conn.info.dsn, workflows=[ClockFlow])
    app.register()
    yield app
    app.close()


@pytest.fixture
def clock(tmp_path: Path) -> WorkerClock:
    """The clock of the worker."""
    return WorkerClock(tmp_path / "clock")


@pytest.fixture
def worker(app: Pgflow, clock: WorkerClock, conn: Connection, tmp_path: Path) -> Iterator[int]:
    """The process id of a worker with that clock."""
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*clock.command, *OPTIONS],
            cwd=CHECKOUT,
            env={**os.environ, "PGFLOW_DSN": conn.info.dsn, "PYTHONPATH": str(CHECKOUT)},
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        code = process.wait()
        print((tmp_path / "log").read_text())
    assert code == 0


def read_clocks() -> dict[str, Any]:
    """Let the worker read its clocks."""
    at = datetime.now(UTC)
    value = str(at.timestamp())
    ClockFlow.start(value, Request(at=at))
    until(lambda: ClockFlow.get(value).status == "completed", "the answer")
    reading: dict[str, Any] = ClockFlow.get(value).history[0].output
    return reading


def test_a_workers_wall_clock_jumps_live_and_it_works_on_under_its_lease(
    clock: WorkerClock, worker: int, conn: Connection
) -> None:
    read_clocks()
    registered = conn.execute("select id, pid from pgflow.workers").fetchall()
    for by in (timedelta(0), timedelta(hours=3), timedelta(hours=-3), timedelta(0)):
        clock.jump(by)
        reading = read_clocks()
        assert reading["pid"] == worker
        assert reading["is_datetime"]
        for name, ahead in reading["ahead"].items():
            assert 0 <= ahead - by.total_seconds() < BUSY, name
    assert conn.execute("select id, pid from pgflow.workers").fetchall() == registered
    assert registered[0][1] == worker
