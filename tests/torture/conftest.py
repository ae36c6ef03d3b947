"""Fixtures of the tests of torture: a database with pgflow in it, and a proxy to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from tests.torture.wire.proxy import Proxy, upstream_of


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
