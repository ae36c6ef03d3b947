"""The dashboard of a depot, once for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from tests.web.depot.app import Depot


@pytest.fixture(scope="module")
def depot(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Depot]:
    """The depot with its tasks, queues and schedules, and no worker: due jobs run when a test drains it."""
    made = Depot(migrated_database(server))
    yield made
    made.app.close()
