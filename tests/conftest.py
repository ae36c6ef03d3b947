"""Fixtures for every test: PostgreSQL servers of several versions, and empty databases on them."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import count

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg.conninfo import conninfo_to_dict

from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres, find_installations
from pgflow.migrations.migrate import up
from pgflow.testing.server import Server

__all__ = ["GIVEN_DSN", "VERSIONS", "Server"]

# The duration of an example is meaningless on a machine with other load.
settings.register_profile("pgflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("pgflow"), max_examples=20_000)  # --hypothesis-profile=long
settings.load_profile("pgflow")

# A shell ignores SIGINT in background processes, and their children inherit that; some tests send SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

GIVEN_DSN = os.environ.get("PGFLOW_TEST_DSN")
VERSIONS = [None] if GIVEN_DSN else sorted({each.version for each in find_installations()}, reverse=True)


# The files that take longest, as measured, the longest first.
SLOW = (
    *("test_docs.py", "test_torture.py", "test_releases.py", "test_failover.py", "test_cli_doctor.py"),
    *("test_drift.py", "test_compare.py", "test_scale.py", "test_limits.py", "test_sweep.py", "test_j_storage.py"),
    *("test_checker.py", "test_network.py", "test_breaking.py", "test_crashes.py", "test_life.py"),
)


def _name_version(version: int | None) -> str:
    return f"postgresql-{version}" if version else "PGFLOW_TEST_DSN"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`: run whole what the suite runs in a short form."""
    parser.addoption("--long", action="store_true", help="Run the long forms: every fault, every statement.")


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether tests with a short form run their long one (`bin/test --long`)."""
    return bool(pytestconfig.getoption("--long"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process waits for one of them at the end."""
    ranks = {name: rank for rank, name in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(SLOW)))


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[int | None], Server]]:
    """Return a function that starts a server of a major version, once per session; they all end with the session."""
    started: dict[int | None, Server] = {}
    with ExitStack() as stack:

        def start(version: int | None) -> Server:
            if version not in started:
                if GIVEN_DSN:
                    with psycopg.connect(GIVEN_DSN) as connection:
                        started[version] = Server(GIVEN_DSN, connection.info.server_version // 10_000)
                else:
                    postgres = stack.enter_context(EmbeddedPostgres(version, durable=False))
                    started[version] = Server(postgres.dsn, postgres.version)
            return started[version]

        yield start


@pytest.fixture(scope="session")
def server(start_server: Callable[[int | None], Server]) -> Server:
    """The newest installed PostgreSQL."""
    return start_server(VERSIONS[0] if VERSIONS else None)


@pytest.fixture(scope="session", params=VERSIONS, ids=_name_version)
def any_server(request: pytest.FixtureRequest, start_server: Callable[[int | None], Server]) -> Server:
    """Each installed major version of PostgreSQL: the test runs once on each.

    Tests run in random order, so the version changes often: cache expensive objects by version, in a fixture that does
    not depend on this one.
    """
    return start_server(request.param)


@pytest.fixture(scope="session")
def new_database(start_server: Callable[[int | None], Server]) -> Iterator[Callable[..., str]]:
    """Return `new_database(server, template=None)`: the dsn of a new database, which is dropped when the session ends.

    `template` is the dsn of a database on that server, without connections, to copy. Depends on `start_server` so that
    the servers end after the databases.
    """
    numbers = count(1)
    with ExitStack() as stack:

        def create(server: Server, template: str | None = None) -> str:
            name = f"pgflow_test_{os.getpid()}_{next(numbers)}"
            dsn = server.create_database(name, template and str(conninfo_to_dict(template)["dbname"]))
            if GIVEN_DSN:  # the data of our own servers is deleted with them; each drop would cost a checkpoint
                stack.callback(server.drop_database, name)
            return dsn

        yield create


@pytest.fixture(scope="session")
def template_on(new_database: Callable[..., str]) -> Callable[[Server], str]:
    """Return `template_on(server)`: the dsn of a database with pgflow's schema, to copy; made once for each server."""

    @cache
    def create(server: Server) -> str:
        dsn: str = new_database(server)
        with connect(dsn, "migrate") as conn:
            up(conn)
        return dsn

    return create


@pytest.fixture(scope="session")
def template(server: Server, template_on: Callable[[Server], str]) -> str:
    """The dsn of that database on the newest PostgreSQL."""
    return template_on(server)


@pytest.fixture(scope="session")
def migrated_database(
    new_database: Callable[..., str], template_on: Callable[[Server], str]
) -> Callable[[Server], str]:
    """Return `migrated_database(server)`: the dsn of a new database with pgflow's schema.

    It is a copy of a template: to apply the migrations takes twenty times as long.
    """

    def create(server: Server) -> str:
        dsn: str = new_database(server, template_on(server))
        return dsn

    return create


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str]) -> str:
    """The dsn of an empty database, for one test module."""
    return new_database(server)
