"""Fixtures of the database tests: a database with pgflow's schema, and a connection whose work is rolled back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pgflow.database import files
from pgflow.database.connect import Connection, connect
from tests.conftest import Server
from tests.store.granted_roles import GrantedRoles
from tests.store.sql_copy import clear_caches

TABLES = (
    *("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers", "queues", "definitions"),
    *("node_queues", "limits", "rates", "places", "stale_payloads", "task_results", "tasks", "schedules"),
)


@pytest.fixture(scope="module")
def migrated(server: Server, migrated_database: Callable[[Server], str]) -> str:
    """The dsn of a database with pgflow's schema, for one test module."""
    return migrated_database(server)


@pytest.fixture
def conn(migrated: str) -> Iterator[Connection]:
    """A connection to `migrated`, in a transaction that is rolled back."""
    with connect(migrated, "test") as connection, connection.transaction(force_rollback=True):
        yield connection


@pytest.fixture
def empty(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database, for one test."""
    return new_database(server)


@pytest.fixture
def sql_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of sql/ that the code uses instead of the original, to which a test can add migrations."""
    copy = tmp_path / "sql"
    shutil.copytree(files.CHECKOUT, copy)
    monkeypatch.setattr(files, "root", lambda: copy)
    clear_caches()
    yield copy
    monkeypatch.undo()
    clear_caches()


@pytest.fixture(scope="session")
def parts_on(new_database: Callable[..., str]) -> Iterator[Callable[[Server], GrantedRoles]]:
    """Return `parts_on(server)`: a database with pgflow and roles with their parts, created once per server."""
    known: dict[int, GrantedRoles] = {}
    with ExitStack() as ends:

        def create(server: Server) -> GrantedRoles:
            if server.version not in known:
                known[server.version] = GrantedRoles.create(new_database(server), ends)
            return known[server.version]

        yield create


@pytest.fixture
def parts(any_server: Server, parts_on: Callable[[Server], GrantedRoles]) -> Iterator[GrantedRoles]:
    """Roles with their parts, on each PostgreSQL version; rows that a test leaves are deleted."""
    parts = parts_on(any_server)
    yield parts
    with parts.connect("admin") as conn:
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the constants above
