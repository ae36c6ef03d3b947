"""Fixtures of the tests that speak SQL: a database with pgflow in it, and a connection whose work is rolled back."""

from collections.abc import Callable, Iterator

import pytest

from pgflow.store.connect import Connection, connect
from pgflow.store.migrate import up
from tests.conftest import Server


@pytest.fixture(scope="module")
def migrated(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of a database of the test module's own, with pgflow's schema in it."""
    dsn = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return dsn


@pytest.fixture
def conn(migrated: str) -> Iterator[Connection]:
    """A connection to `migrated`, in a transaction that is rolled back."""
    with connect(migrated, "test") as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def empty(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database of the test's own."""
    return new_database(server)
