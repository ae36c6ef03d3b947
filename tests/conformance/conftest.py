"""The stacks that every behaviour is tested on: in memory, and each available major version of PostgreSQL."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pgflow import Instance, Pgflow, Workflow
from pgflow.database.connect import connect
from pgflow.local import Local, Storage
from tests.conftest import VERSIONS, Server
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

ITEM = re.compile(r"test_([a-z])(\d+)_")
ENDED = ("completed", "failed", "cancelled")
TABLES = ("jobs", "signals", "scheduled_signals", "step_results", "instances", "workers", "queues", "definitions")
POSTGRES = [f"postgresql-{version}" if version else "PGFLOW_TEST_DSN" for version in VERSIONS]


class Stack(ABC):
    """Runs workflows for one test, and deletes all of their data afterwards."""

    is_local: bool
    app: Any

    @abstractmethod
    def run(self, *workflows: type[Workflow[Any]], queues: dict[str, int] | None = None, **options: Any) -> Any:
        """Return an app that runs these workflows until the test ends; `options` are those of a worker."""

    @abstractmethod
    def restart(self, *workflows: type[Workflow[Any]]) -> Any:
        """Stop the app and its workers, and return a new app on the same storage.

        `workflows` are those of the next deployment, by default the same.
        """

    def until(self, workflow: type[Workflow[Any]], value: str, *statuses: str) -> Instance:
        """Wait until an instance has one of these statuses, by default until it has ended, and return it."""

        def look() -> Instance | None:
            seen = workflow.get(value)
            return seen if seen.status in (statuses or ENDED) else None

        found = until(look, f"{workflow.name} {value}: {statuses or ENDED}", pause=0.005)
        assert found is not None
        return found


class InMemory(Stack):
    """Workflows in the memory of this process."""

    is_local = True
    app: Local

    def __init__(self, ends: ExitStack) -> None:
        self._ends = ends
        self.storage = Storage()

    def run(self, *workflows: type[Workflow[Any]], queues: dict[str, int] | None = None, **options: Any) -> Local:
        """Return a `Local`; queues and the options of a worker do not apply."""
        self.app = Local(workflows=workflows, storage=self.storage, allow_transactional=True)
        self._ends.callback(self.app.close)
        return self.app

    def restart(self, *workflows: type[Workflow[Any]]) -> Local:
        """Close the app, and return another one on its storage."""
        self.app.close()
        return self.run(*(workflows or self.app.workflows))


class OnPostgres(Stack):
    """Workflows on a database, with a worker on a thread of this process."""

    is_local = False
    app: Pgflow

    def __init__(self, dsn: str, ends: ExitStack) -> None:
        self.dsn = dsn
        self._ends = ends
        self._workers: list[Inside] = []

    def run(self, *workflows: type[Workflow[Any]], queues: dict[str, int] | None = None, **options: Any) -> Pgflow:
        """Return a `Pgflow` and start a worker of it."""
        app = self.idle(*workflows)
        self.work(queues, **options)
        return app

    def idle(self, *workflows: type[Workflow[Any]]) -> Pgflow:
        """Return a `Pgflow` without workers."""
        self.app = Pgflow(self.dsn, workflows=workflows)
        self._ends.callback(self.app.close)
        self.app.register()
        return self.app

    def work(self, queues: dict[str, int] | None = None, **options: Any) -> Inside:
        """Start another worker."""
        self._options = (queues, options)
        worker = self._ends.enter_context(Inside(self.app, queues or {"default": 20}, **options))
        self._workers.append(worker)
        return worker

    def restart(self, *workflows: type[Workflow[Any]]) -> Pgflow:
        """Stop the workers, and start one of a new app."""
        for worker in self._workers:
            worker.stop()
        self._workers.clear()
        queues, options = self._options
        return self.run(*(workflows or self.app.workflows), queues=queues, **options)

    def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with connect(self.dsn, "test") as conn:
            return conn.execute(query.encode(), params).fetchall()


@pytest.fixture(scope="session")
def installed(
    start_server: Callable[[int | None], Server], migrated_database: Callable[[Server], str]
) -> Callable[[int | None], str]:
    """Return `installed(version)`: the dsn of a database on that PostgreSQL with pgflow's schema."""
    return cache(lambda version: migrated_database(start_server(version)))


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Each stack in turn."""
    yield from _stack(request)


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Each PostgreSQL in turn."""
    yield from _stack(request)


def _stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    if request.param == "local":
        with ExitStack() as ends:
            yield InMemory(ends)
        return
    dsn = request.getfixturevalue("installed")(VERSIONS[POSTGRES.index(request.param)])
    try:
        with ExitStack() as ends:
            yield OnPostgres(dsn, ends)
    finally:
        with connect(dsn, "test") as conn:
            for table in TABLES:
                conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names are constants


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use a stack on each of them."""
    if "stack" in metafunc.fixturenames:
        metafunc.parametrize("stack", ["local", *POSTGRES], indirect=True)
    if "postgres" in metafunc.fixturenames:
        metafunc.parametrize("postgres", POSTGRES, indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run this suite, if it runs alone, in the order of its list instead of a random one."""
    here = Path(__file__).parent
    if all(item.path.parent == here for item in items):
        items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[str, int, str, int, str]:
    letter, number = found.groups() if (found := ITEM.match(item.name)) else ("", "0")
    return letter, int(number), item.path.name, item.location[1] or 0, item.name
