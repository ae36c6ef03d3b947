"""Fixtures of the tests of torture: a database with pgflow in it, and a proxy to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pgflow.cli.torture.wire.proxy import Proxy, upstream_of
from pgflow.store.connect import connect
from pgflow.store.migrate import up
from tests.conftest import Server


@pytest.fixture(scope="session")
def template(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database with pgflow in it, to make copies of."""
    dsn: str = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str], template: str) -> str:
    """The dsn of a database of the test module's own, with pgflow in it, past the proxy."""
    copied: str = new_database(server, template)
    return copied


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    """A proxy to the server, without a door yet."""
    with Proxy(upstream_of(dsn)) as proxy:
        yield proxy
