"""Fixtures of the tests of torture: a database with pgflow in it, and a proxy to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pgflow.cli.torture.proxy import Proxy, upstream_of
from pgflow.store.connect import connect
from pgflow.store.migrate import up
from tests.conftest import Server


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database of the test module's own, with pgflow in it, past the proxy."""
    dsn: str = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A proxy to the server, without a door yet."""
    with Proxy(upstream_of(dsn)) as proxy:
        yield proxy
