"""A migration that is killed at any moment and run again has the same result as an undisturbed one."""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest

from pgflow.database.connect import Connection, connect
from pgflow.migrations import migrate
from tests.conftest import Server
from tests.store.test_migrate import catalog
from tests.upgrade.releases import Release, Site
from tests.worker.db_helpers import one, rows
from tests.worker.waiting import until

pytestmark = pytest.mark.slow

FRESH = "fresh"
SHORT_STRIDE = 6  # of the statements; `--long` tries each
INVALID = "select indexrelid::regclass::text from pg_index where not indisvalid"


class Killed(BaseException):
    """The process was killed."""


@contextmanager
def killed_before(nth: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Simulate a kill just before the `nth` statement from here on; yields the statements sent until then.

    The server sees the same as after a kill: a connection that ends, without cleanup.
    """
    execute, sent = psycopg.Cursor.execute, list[str]()

    def counting(self: psycopg.Cursor[Any], query: Any, *args: Any, **options: Any) -> Any:
        if len(sent) == nth - 1 and not self.connection.closed:
            with socket.socket(fileno=socket.dup(self.connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
            raise Killed
        sent.append(query)
        return execute(self, query, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counting)
        yield sent


def made(dsn: str, schema: str) -> list[str]:
    """Return the objects of a schema, independent of its name."""
    return sorted(str(each).replace(schema, FRESH) for each in catalog(dsn, schema))


def test_a_migrate_killed_before_any_statement_and_run_again_creates_the_same_schema(
    server: Server, new_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    dsn = new_database(server)
    with connect(dsn, "migrate") as conn:
        migrate.up(conn, FRESH)
    whole = made(dsn, FRESH)
    for nth in count(1) if is_long else count(random.randint(1, SHORT_STRIDE), SHORT_STRIDE):  # noqa: S311 -- seeded by pytest
        schema = f"killed_{nth}"
        with killed_before(nth, monkeypatch) as sent:
            try:
                with connect(dsn, "migrate") as conn:
                    migrate.up(conn, schema)
            except Killed:
                pass
            else:
                break  # it completed before that statement
        with connect(dsn, "migrate") as conn:
            migrate.up(conn, schema)
            assert migrate.status(conn, schema).up_to_date
            assert rows(conn, INVALID) == []
            assert made(dsn, schema) == whole, sent[-1]
            conn.execute(f"drop schema {schema} cascade".encode())
    assert nth > 80


@pytest.fixture
def halfway(site: Site, conn: Connection) -> Iterator[Connection]:
    """A connection with an open transaction that the next migration, which builds indexes, must wait for."""
    with connect(site.dsn, "migrate") as migrator:
        migrate.up(migrator, to=4)
    with connect(site.dsn, "migrate") as busy:  # without timeouts
        busy.execute("begin")
        busy.execute("insert into pgflow.instances (id, workflow, version, input) values ('a', 'A', 1, '{}')")
        yield busy


def building(conn: Connection) -> int | None:
    """Return the process id of the backend that builds or drops an index and waits."""
    found: int | None = one(
        conn,
        "select pid from pg_stat_activity where datname = current_database() "
        "and query ~ '(create|drop) index concurrently' and state = 'active' and wait_event_type = 'Lock'",
    )
    return found


def test_an_index_left_half_built_is_built_again(
    site: Site, conn: Connection, halfway: Connection, server: Server, new_database: Callable[..., str]
) -> None:
    with connect(site.dsn, "migrate") as migrator, ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(migrate.up, migrator)
        pid = until(lambda: building(conn), "the index")
        conn.execute("select pg_terminate_backend(%s)", [pid])
        with pytest.raises(psycopg.OperationalError):
            migrating.result(30)
    assert rows(conn, INVALID) == [("pgflow.instances_by_workflow",)]
    halfway.execute("commit")
    fresh = new_database(server)
    for dsn in (site.dsn, fresh):
        with connect(dsn, "migrate") as migrator:
            migrate.up(migrator)
    assert rows(conn, INVALID) == []
    assert catalog(site.dsn) == catalog(fresh)


def test_a_command_killed_while_it_builds_an_index_does_not_block_the_next_one(
    site: Site, conn: Connection, halfway: Connection, releases: dict[str, Release]
) -> None:
    first = site.begin(releases["present"], "migrate")
    orphan = until(lambda: building(conn), "the index")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = site.begin(releases["present"], "migrate")
    until(lambda: building(conn) not in (None, orphan), "the second one's turn")  # the server has noticed
    assert rows(conn, INVALID) != []
    halfway.execute("commit")
    out, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (0, ""), out
    assert rows(conn, INVALID) == []
    with connect(site.dsn, "migrate") as migrator:
        migrate.check(migrator)
