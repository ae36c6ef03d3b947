"""`pgflow roles`: --apply grants and revokes, --sql prints the same statements."""

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
    """A connection to a database with pgflow in the schema orders, and a role without privileges."""
    with connect(dsn, "migrate") as connection:
        up(connection, "orders")
        connection.execute(f'create role "{NAME}"'.encode())
        yield connection
        connection.execute(f'drop owned by "{NAME}"; drop role "{NAME}"'.encode())


def roles(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["roles", "--schema", "orders", *arguments])


def rights(conn: Connection) -> tuple[Any, ...]:
    """Return whether the role may start instances, claim jobs and read."""
    (row,) = conn.execute(
        "select bool_or(has_function_privilege(%(role)s, p.oid, 'execute')) filter (where p.proname = 'start'),"
        " has_table_privilege(%(role)s, 'orders.jobs', 'delete'),"
        " has_table_privilege(%(role)s, 'orders.jobs', 'select')"
        " from pg_proc p where p.pronamespace = 'orders'::regnamespace",
        {"role": NAME},
    ).fetchall()
    return row


def test_apply_grants_the_named_privileges_and_revokes_others(dsn: str, conn: Connection) -> None:
    for options, expected in (
        (["--worker", NAME, "--client", NAME], (True, True, True)),
        (["--client", NAME], (True, False, False)),
        (["--dashboard", NAME], (False, False, True)),
    ):
        done = roles("--apply", "--dsn", dsn, *options)
        assert (done.exit_code, len(done.output.splitlines())) == (0, len(options) // 2), done.output
        assert rights(conn) == expected


def test_sql_prints_the_statements_without_a_database(conn: Connection) -> None:
    printed = roles("--sql", "--client", NAME, "--dsn", "host=nowhere.invalid")
    assert printed.exit_code == 0
    conn.execute(printed.output.encode(), prepare=False)
    assert rights(conn) == (True, False, False)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--client", NAME], "Pass either --sql or --apply"),
        (["--sql", "--apply", "--client", NAME], "Pass either --sql or --apply"),
        (["--sql"], "no role was given"),
        (["--apply", "--worker", "missing role"], "no such role: missing role"),
    ],
)
def test_an_incomplete_command_line_is_refused(dsn: str, conn: Connection, arguments: list[str], problem: str) -> None:
    done = roles(*arguments, "--dsn", dsn)
    assert done.exit_code == 2
    assert problem in done.output
    assert rights(conn) == (False, False, False)
