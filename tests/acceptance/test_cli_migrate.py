"""`pgflow migrate`, and what every command has: usage errors, --debug, --help, --version, connection errors."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from psycopg.conninfo import make_conninfo

from pgflow.database.connect import connect
from pgflow.database.migration_files import migrations
from pgflow.embedded import find_installations
from pgflow.migrations.migrate import check, status
from tests.acceptance import command
from tests.acceptance.command import PROGRAM, environment
from tests.conftest import Server

SECRET = "hunter2"  # noqa: S105 - opens nothing
MIGRATORS = 6


def pgflow(*arguments: str, **variables: str) -> CompletedProcess[str]:
    return command.run(*arguments, env=environment(**variables))


@pytest.fixture
def empty(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database for this test."""
    return new_database(server)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is bound but not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def refused(done: CompletedProcess[str], exit_code: int) -> str:
    """Assert that a command failed without printing the password, and return its error line."""
    line = command.error_line(done, exit_code)
    assert SECRET not in line
    return line


def test_migrate_installs_once(empty: str) -> None:
    first = pgflow("migrate", "--dsn", empty)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines()[0] == "applied 0001 engine"
    assert first.stdout.splitlines()[-1] == "applied functions"
    second = pgflow("migrate", PGFLOW_DSN=empty)
    assert (second.returncode, second.stdout) == (0, 'schema "pgflow" is up to date\n')
    with connect(empty) as conn:
        check(conn)


def test_concurrent_processes_apply_each_migration_once(empty: str) -> None:
    with ThreadPoolExecutor(MIGRATORS) as pool:
        line = [*PROGRAM, "migrate", "--json", "--dsn", empty]
        done = list(
            pool.map(
                lambda _: subprocess.run(line, capture_output=True, check=False, env=environment(), text=True),
                range(MIGRATORS),
            )
        )
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * MIGRATORS
    applied = [entry["name"] for each in done for entry in json.loads(each.stdout)["applied"]]
    assert sorted(applied) == sorted([*(each.name for each in migrations()), "functions"])


def test_status_exits_with_4_until_the_schema_is_up_to_date(empty: str) -> None:
    before = pgflow("migrate", "--status", "--dsn", empty)
    assert before.returncode == 4
    assert ["0001", "engine", "pending"] in [line.split() for line in before.stdout.splitlines()]
    assert before.stdout.endswith('schema "pgflow" is not up to date. Run: pgflow migrate\n')
    pgflow("migrate", "--dsn", empty)
    after = pgflow("migrate", "--status", "--json", "--dsn", empty)
    assert after.returncode == 0
    status = json.loads(after.stdout)
    assert status["schema_version"] == 1
    assert status["up_to_date"] is True
    assert status["pending"] == []
    assert status["version"] == status["latest"] == len(status["applied"]) == len(migrations())
    assert status["applied"][0]["applied_at"].endswith("Z")


@pytest.mark.parametrize(
    ("checksum", "shown", "problem"), [("announced", 1, "is announced, and will be too new"), ("", 0, "is too new")]
)
def test_status_exits_with_4_if_the_schema_is_too_new(empty: str, checksum: str, shown: int, problem: str) -> None:
    pgflow("migrate", "--dsn", empty)
    with connect(empty) as conn:
        conn.execute(
            "insert into pgflow.migrations (version, name, checksum, breaking) values (99, 'future', %s, true)",
            [checksum],
        )
    done = pgflow("migrate", "--status", "--dsn", empty)
    assert done.returncode == 4
    assert [line.split() for line in done.stdout.splitlines()].count(["0099", "future", "announced"]) == shown
    assert done.stderr.startswith(f'pgflow: migration 0099_future of schema "pgflow" {problem} for this pgflow')


def test_a_dry_run_writes_nothing(empty: str) -> None:
    done = pgflow("migrate", "--dry-run", DATABASE_URL=empty)
    assert done.returncode == 0
    assert done.stdout.startswith("would apply 0001 engine\n")
    with connect(empty) as conn:
        assert not status(conn).version


def test_the_schema_is_chosen_by_flag_or_environment(empty: str) -> None:
    assert pgflow("migrate", "--schema", "orders", "--dsn", empty).returncode == 0
    assert pgflow("migrate", "--status", "--dsn", empty, PGFLOW_SCHEMA="orders").returncode == 0
    line = refused(pgflow("migrate", "--schema", "Orders", "--dsn", empty), 2)
    assert "'Orders' is not a valid schema name" in line


@pytest.mark.parametrize(
    "psql",
    dict.fromkeys(
        str(each)
        for each in (*(found.bindir / "psql" for found in find_installations()), Path(shutil.which("psql") or "-"))
        if each.exists()
    ),
)
def test_the_script_runs_in_psql(psql: str, empty: str) -> None:
    script = pgflow("migrate", "--sql", "--schema", "user")
    assert (script.returncode, script.stderr) == (0, "")
    subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--dbname", empty],
        check=True,
        capture_output=True,
        env=environment(),
        input=script.stdout,
        text=True,
    )
    assert pgflow("migrate", "--status", "--schema", "user", "--dsn", empty).returncode == 0


def test_an_unreachable_server_is_reported_in_one_line_with_exit_code_3(closed_port: int) -> None:
    line = refused(pgflow("migrate", "--dsn", f"postgresql://ann:{SECRET}@127.0.0.1:{closed_port}/shop"), 3)
    assert f"cannot reach PostgreSQL at 127.0.0.1:{closed_port}/shop: Connection refused. Start PostgreSQL" in line


def test_a_missing_database_exits_with_3(server: Server) -> None:
    line = refused(pgflow("migrate", "--dsn", server.database_dsn("nowhere")), 3)
    assert 'database "nowhere" does not exist. Create the database with createdb' in line


def test_an_invalid_connection_string_is_reported_in_one_line_with_exit_code_2() -> None:
    refused(pgflow("migrate", "--dsn", f"postgresql://ann:p@{SECRET}@db.example/shop"), 2)
    refused(pgflow("migrate", PGFLOW_DSN=f"nonsense {SECRET}"), 2)


def test_a_foreign_schema_exits_with_4(empty: str) -> None:
    with connect(empty) as conn:
        conn.execute("create schema pgflow; create table pgflow.orders (id int)")
    line = refused(pgflow("migrate", "--dsn", empty), 4)
    assert "not pgflow's. Use a separate schema for pgflow: --schema NAME" in line


def test_missing_privileges_are_reported(server: Server, empty: str) -> None:
    with connect(empty) as conn:
        conn.execute("create role reader login")
    try:
        line = refused(pgflow("migrate", "--dsn", make_conninfo(empty, user="reader")), 3)
        assert "PostgreSQL error: permission denied for database" in line
    finally:
        with connect(empty) as conn:
            conn.execute("drop role reader")


def test_debug_adds_the_traceback_before_or_after_the_command(closed_port: int) -> None:
    dsn = f"host=127.0.0.1 port={closed_port} password={SECRET}"
    for arguments in (("--debug", "migrate", "--dsn", dsn), ("migrate", "--debug", "--dsn", dsn)):
        done = pgflow(*arguments)
        assert done.returncode == 3
        assert "Traceback" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("pgflow: cannot reach PostgreSQL")


@pytest.mark.parametrize(
    "arguments",
    [("migrate", "--nonsense"), ("migrte",), ("migrate", "--status", "--sql"), ("migrate", "--after", "1"), ("--sql",)],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = pgflow(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: pgflow")
    assert "Traceback" not in done.stderr


def test_a_misspelt_command_is_answered_with_a_suggestion() -> None:
    assert "Did you mean migrate?" in pgflow("migrte").stderr


def test_help_needs_neither_psycopg_nor_pydantic() -> None:
    program = """
import contextlib, sys
with contextlib.suppress(SystemExit):
    from pgflow.cli import main; main()
print(sorted({"psycopg", "pydantic", "tenacity", "asyncio"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "-h"], capture_output=True, check=False, env=environment(), text=True
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "Install or upgrade pgflow's schema." in done.stdout


def test_version_lists_the_versions_for_a_bug_report() -> None:
    done = pgflow("--version")
    assert done.returncode == 0
    assert [word for word in ("pgflow ", "Python ", "psycopg ", "libpq ") if word not in done.stdout] == []


def test_the_help_shows_each_example_on_a_line() -> None:
    assert "\n    pgflow migrate --status\n" in pgflow("migrate", "-h").stdout
