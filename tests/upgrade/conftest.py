"""Fixtures of the tests with several releases: their trees, a site with a database, and their workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pgflow.database.connect import Connection, connect
from tests.conftest import Server
from tests.upgrade.releases import Release, Site, breaking, compatible, present
from tests.worker.processes import Process, Processes

Hire = Callable[..., Process]


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The current release, and two possible next ones: "present", "compatible" and "breaking"."""
    folder = tmp_path_factory.mktemp("releases")
    made = (make(folder / make.__name__) for make in (present, compatible, breaking))
    return {release.name: release for release in made}


@pytest.fixture
def site(server: Server, new_database: Callable[..., str], tmp_path: Path) -> Iterator[Site]:
    """An empty database, and the processes that use it."""
    site = Site(new_database(server), tmp_path)
    with connect(site.dsn) as conn:
        conn.execute("create table public.bookings (value text)")
    try:
        yield site
    finally:
        site.reap()


@pytest.fixture
def conn(site: Site) -> Iterator[Connection]:
    """A connection to the site's database that commits each statement."""
    with connect(site.dsn, "test") as connection:
        yield connection


@pytest.fixture
def hire(site: Site, conn: Connection) -> Iterator[Hire]:
    """Return `hire(release, *options, ready=True)`: a worker process of that release; killed when the test ends."""
    with ExitStack() as ends:
        staffs: dict[str, Processes] = {}

        def start(release: Release, *options: str, ready: bool = True) -> Process:
            if release.name not in staffs:
                folder = site.folder / "logs" / release.name
                folder.mkdir(parents=True)
                more = {"RELEASE": release.name, "STEPS": str(site.steps)}
                staffs[release.name] = Processes(site.dsn, folder, conn, release.tree, more)
                ends.callback(staffs[release.name].reap)
            return staffs[release.name].start("--lease", "5", *options, app="tests.upgrade.flow", ready=ready)

        yield start
