"""`pgflow roles` as people run it: what it prints does what it applies, and it refuses to guess."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgflow.cli import cli
from pgflow.database.connect import Connection, connect
from pgflow.migrations.migrate import up

NAME = f"pgflow cli {os.getpid()}"


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """A connection to a database with pgflow in a schema of another name, and a role without rights."""
    with connect(dsn, "migrate") as connection:
        up(connection, "orders")
        connection.execute(f'create role "{NAME}"'.encode())
        yield connection
        connection.execute(f'drop owned by "{NAME}"; drop role "{NAME}"'.encode())


def roles(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["roles", "--schema", "orders", *arguments])


def rights(conn: Connection) -> tuple[Any, ...]:
    """Whether the role may start, claim and read."""
    (row,) = conn.execute(
        "select bool_or(has_function_privilege(%(role)s, p.oid, 'execute')) filter (where p.proname = 'start'),"
        " has_table_privilege(%(role)s, 'orders.jobs', 'delete'),"
        " has_table_privilege(%(role)s, 'orders.jobs', 'select')"
        " from pg_proc p where p.pronamespace = 'orders'::regnamespace",
        {"role": NAME},
    ).fetchall()
    return row


def test_it_gives_what_was_asked_for_and_takes_the_rest(dsn: str, conn: Connection) -> None:
    for options, expected in (
        (["--worker", NAME, "--client", NAME], (True, True, True)),
        (["--client", NAME], (True, False, False)),
        (["--dashboard", NAME], (False, False, True)),
    ):
        done = roles("--apply", "--dsn", dsn, *options)
        assert (done.exit_code, len(done.output.splitlines())) == (0, len(options) // 2), done.output
        assert rights(conn) == expected


def test_it_prints_what_it_would_run_and_needs_no_database_for_it(conn: Connection) -> None:
    printed = roles("--sql", "--client", NAME, "--dsn", "host=nowhere.invalid")
    assert printed.exit_code == 0
    conn.execute(printed.output.encode(), prepare=False)
    assert rights(conn) == (True, False, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--client", NAME], "Pass either --sql or --apply"),
        (["--sql", "--apply", "--client", NAME], "Pass either --sql or --apply"),
        (["--sql"], "no role was given"),
        (["--apply", "--worker", "nobody of that name"], "no such role: nobody of that name"),
    ],
)
def test_it_does_not_guess(dsn: str, conn: Connection, arguments: list[str], said: str) -> None:
    done = roles(*arguments, "--dsn", dsn)
    assert done.exit_code == 2
    assert said in done.output
    assert rights(conn) == (False, False, False)
