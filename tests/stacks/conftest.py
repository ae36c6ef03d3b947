"""Two stacks for one suite: in memory, and on PostgreSQL with a worker on a thread of this process.

A test module names its workflows in WORKFLOWS, and its tasks in TASKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from pgflow import Instance, Pgflow, Workflow
from pgflow.local import Local
from tests.conftest import Server
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

NUMBERS = count(1)
ENDED = ("completed", "failed", "cancelled")


class Stack:
    """What the suite needs of a stack besides the calls on workflow classes; `value` is new for each test."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value = f"v{next(NUMBERS)}"

    def until(self, workflow: type[Workflow[Any]], *statuses: str, value: str | None = None) -> Instance:
        """Wait until an instance has one of these statuses, by default until it has ended, and return it."""

        def look() -> Instance | None:
            seen = workflow.get(value or self.value)
            return seen if seen.status in (statuses or ENDED) else None

        found = until(look, f"{workflow.name} {statuses or ENDED}", pause=0.005)
        assert found is not None
        return found

    def until_again(self, workflow: type[Workflow[Any]], before: Instance) -> Instance:
        """Wait until a retried instance has ended again, and return it."""

        def look() -> Instance | None:
            seen = workflow.get(self.value)
            return seen if seen.finished_at not in (None, before.finished_at) else None

        found = until(look, f"the next end of {workflow.name}", pause=0.005)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def local(request: pytest.FixtureRequest) -> Iterator[Local]:
    """The module's workflows and tasks in memory."""
    with Local(workflows=request.module.WORKFLOWS, tasks=getattr(request.module, "TASKS", ())) as app:
        yield app


@pytest.fixture(scope="module")
def postgres(
    request: pytest.FixtureRequest, server: Server, migrated_database: Callable[[Server], str]
) -> Iterator[Pgflow]:
    """The module's workflows and tasks on a database of their own, with a worker that runs as long as its tests."""
    tasks = getattr(request.module, "TASKS", ())
    app = Pgflow(migrated_database(server), workflows=request.module.WORKFLOWS, tasks=tasks)
    app.register()
    with Inside(app, {"default": 20}, sweep=timedelta(seconds=1), lease=timedelta(seconds=30)):
        yield app
    app.close()


@pytest.fixture(params=["local", "postgres"])
def app(request: pytest.FixtureRequest) -> Any:
    """The app of each stack in turn; the workflows and tasks belong to it for the time of the test."""
    app = request.getfixturevalue(request.param)
    for each in (*app.workflows, *app.tasks):
        each.bind(app)
    return app


@pytest.fixture
def stack(app: Local | Pgflow) -> Stack:
    """Each stack in turn."""
    return Stack("local" if isinstance(app, Local) else "postgres")
