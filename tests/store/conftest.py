"""Fixtures of the tests that speak SQL: a database with pgflow in it, and a connection whose work is rolled back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pgflow.database import files
from pgflow.database.connect import Connection, connect
from pgflow.migrations.migrate import up
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles
from tests.store.sql_copy import forget

TABLES = ("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers", "queues", "definitions")


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


@pytest.fixture
def sql_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of sql/ that the code takes for the real one: for migrations that do not exist."""
    copy = tmp_path / "sql"
    shutil.copytree(files.CHECKOUT, copy)
    monkeypatch.setattr(files, "root", lambda: copy)
    forget()
    yield copy
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="session")
def parts_on(new_database: Callable[..., str]) -> Iterator[Callable[[Server], GrantedRoles]]:
    """Give `parts_on(server)`: a database on it with pgflow and roles for its parts, made once."""
    known: dict[int, GrantedRoles] = {}
    with ExitStack() as ends:

        def cast(server: Server) -> GrantedRoles:
            if server.version not in known:
                known[server.version] = GrantedRoles.cast(new_database(server), ends)
            return known[server.version]

        yield cast


@pytest.fixture
def parts(any_server: Server, parts_on: Callable[[Server], GrantedRoles]) -> Iterator[GrantedRoles]:
    """Roles with their parts, on each PostgreSQL in turn; what a test leaves in the tables is deleted."""
    parts = parts_on(any_server)
    yield parts
    with parts.connect("admin") as conn:
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above
