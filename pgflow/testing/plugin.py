"""The pytest plugin: a PostgreSQL for the session, and a database, an app and a clock for each test.

pytest loads it with pgflow installed; `-p no:pgflow` turns it off. It imports pgflow only in a fixture that is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from pgflow.app import Pgflow
    from pgflow.testing import Clock, CrashReport
    from pgflow.testing.server import Server

DSN_VARIABLE = "PGFLOW_TEST_DSN"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--pgflow-dsn`."""
    parser.getgroup("pgflow").addoption(
        "--pgflow-dsn",
        metavar="DSN",
        help=f"A PostgreSQL on which pgflow's fixtures may create databases. Default: {DSN_VARIABLE}, else an embedded "
        "one, which ends with the session.",
    )


@pytest.fixture(scope="session")
def pgflow_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The server of `--pgflow-dsn` or PGFLOW_TEST_DSN, else an embedded one; one for each process of pytest-xdist."""
    from pgflow.testing.server import running

    given = pytestconfig.getoption("pgflow_dsn") or os.environ.get(DSN_VARIABLE)
    with running(given) as server:
        yield server


@pytest.fixture(scope="session")
def pgflow_prepare() -> Callable[[str], object]:
    """A function of a DSN that adds your own tables to the template of all databases: override it for that."""
    return lambda dsn: None


@pytest.fixture(scope="session")
def pgflow_template(pgflow_server: Server, pgflow_prepare: Callable[[str], object]) -> Iterator[str]:
    """The name of a database with pgflow's schema and your tables, which is copied for each test."""
    from pgflow.testing.server import migrated_template

    with migrated_template(pgflow_server, pgflow_prepare) as name:
        yield name


@pytest.fixture
def pgflow_dsn(pgflow_server: Server, pgflow_template: str) -> Iterator[str]:
    """The DSN of a database for this test: a copy of the template, dropped after the test."""
    from pgflow.testing.server import database

    with database(pgflow_server, pgflow_template) as dsn:
        yield dsn


@pytest.fixture
def pgflow_options() -> dict[str, Any]:
    """The arguments of `Pgflow` for `pgflow_app`, such as `{"workflows": [OrderFlow]}`: override it in a conftest."""
    return {}


@pytest.fixture
def pgflow_app(pgflow_dsn: str, pgflow_options: dict[str, Any]) -> Iterator[Pgflow]:
    """An app on the test's database, which the calls of its workflows go to until the test ends."""
    from pgflow.app import Pgflow

    app = Pgflow(pgflow_dsn, **pgflow_options)
    try:
        if app.schema != "pgflow":  # the template has the default schema only
            app.migrate()
        app.register()
        yield app
    finally:
        app.close()


@pytest.fixture
def pgflow_conn(pgflow_app: Pgflow) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the test's database in a transaction that is rolled back at the end, to pass as `conn`."""
    from pgflow.database.connect import connect

    with connect(pgflow_app.dsn, "test") as conn, conn.transaction(force_rollback=True):
        yield conn


@pytest.fixture
def pgflow_clock(pgflow_app: Pgflow) -> Iterator[Clock]:
    """The clock of `pgflow_app`, at first the real time."""
    from pgflow.testing.clock import Clock

    with Clock(pgflow_app) as clock:
        yield clock


@pytest.fixture
def pgflow_crashes(pgflow_app: Pgflow) -> Iterator[CrashReport]:
    """Crash mode for the whole test: drains deliver each job again at each commit point. Printed when a test fails."""
    from pgflow.testing.crashes import crash_mode

    with ExitStack() as stack:
        report = stack.enter_context(crash_mode(pgflow_app))
        yield report
        print(report)
