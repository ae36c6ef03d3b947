"""The dashboard of a shop, once for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from tests.conftest import Server
from tests.web.site import Site


@pytest.fixture(scope="module")
def site(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Site]:
    """The shop with its instances, and no worker: due jobs run when a test drains it."""
    made = Site(migrated_database(server))
    yield made
    made.app.close()


@pytest.fixture
def client(site: Site) -> Iterator[TestClient]:
    """A browser on this machine, with every right."""
    with site.client() as made:
        yield made
