"""Fixtures of the tests with real workers: a database of the module's own, an app on it, workers inside and outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from tests.conftest import Server
from tests.worker.processes import Processes
from tests.worker.thread_worker import Inside

TABLES = (
    *("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers", "queues"),
    *("node_queues", "limits", "rates", "places", "stale_payloads", "task_results", "schedules", "waiters"),
)

Work = Callable[..., Inside]


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str], template: str) -> str:
    """The dsn of a database of the test module's own, with pgflow in it."""
    copied: str = new_database(server, template)
    return copied


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """A connection that commits each statement; when the test and its workers have ended, the tables are emptied."""
    with connect(dsn, "test") as connection:
        yield connection
        for table in TABLES:
            connection.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above


@pytest.fixture
def app(request: pytest.FixtureRequest, dsn: str, conn: Connection) -> Iterator[Pgflow]:
    """An app with the test module's WORKFLOWS, and its TASKS if it has some, registered."""
    app = Pgflow(dsn, workflows=request.module.WORKFLOWS, tasks=getattr(request.module, "TASKS", ()))
    app.register()
    yield app
    app.close()


@pytest.fixture
def work(app: Pgflow) -> Iterator[Work]:
    """Give `work(queues=None, **options)`: a worker on a thread of this process, until the test ends."""
    with ExitStack() as stack:

        def start(queues: dict[str, int] | None = None, **options: Any) -> Inside:
            return stack.enter_context(Inside(app, queues, **options))

        yield start


@pytest.fixture
def processes(dsn: str, conn: Connection, tmp_path: Path) -> Iterator[Processes]:
    """Start real worker processes; they are killed when the test ends."""
    started = Processes(dsn, tmp_path, conn)
    try:
        yield started
    finally:
        started.reap()
