"""Each migration under load: no session waits for it for long, and no table is rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pgflow.database import files
from pgflow.database.connect import connect
from pgflow.database.migration_files import migrations
from pgflow.migrations import migrate
from tests.conftest import Server
from tests.store.sql_copy import clear_caches
from tests.store.test_migrate import catalog
from tests.upgrade.background_load import SEED, BackgroundLoad, filenodes
from tests.upgrade.releases import Release
from tests.worker.db_helpers import rows

LIMIT = 0.2  # seconds that a session may wait for a migration
NOISE = 0.1  # for other load of the machine


@pytest.fixture
def next_sql(releases: dict[str, Release], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The SQL of a possible next release instead of ours: ours, and migrations of several kinds."""
    monkeypatch.setattr(files, "root", lambda: releases["compatible"].tree / "sql")
    clear_caches()
    yield
    monkeypatch.undo()
    clear_caches()


# Has one row per workflow version, so rewriting it takes no longer than locking it.
SMALL = {"definitions", "definitions_pkey"}
REPLACED = {"jobs_ready"}  # by an index that was built concurrently, under the old name


@pytest.mark.slow
@pytest.mark.usefixtures("next_sql")
def test_on_a_busy_database_no_migration_blocks_sessions_or_rewrites_tables(
    server: Server, new_database: Callable[..., str]
) -> None:
    dsn, fresh = new_database(server), new_database(server)
    figures = []
    with connect(dsn, "migrate") as migrator, connect(dsn, "test") as conn:
        migrate.up(migrator, to=1)
        conn.execute(SEED)
        for version in [*range(2, len(migrations()) + 1), None]:
            if version is None:  # installs all functions again
                conn.execute("update pgflow.migrations set checksum = '' where version = 0")
            before = filenodes(conn)
            is_breaking = version is not None and migrations()[version - 1].breaking
            if is_breaking:
                conn.execute("update pgflow.workers set lease_expires_at = '-infinity'")
            with BackgroundLoad(dsn, migrator.info.backend_pid, renews=not is_breaking) as load:
                assert migrate.up(migrator, to=version)
            kept = {name: node for name, node in filenodes(conn).items() if name in before}
            moved = {name for name, node in kept.items() if before[name] != node}
            figures.append(f"{version}: {load.worst}, {load.turns} turns")
            assert load.errors == []
            assert load.worst[0] < LIMIT + NOISE, figures[-1]
            assert moved <= SMALL | REPLACED, figures[-1]
        assert migrate.status(migrator).up_to_date
        assert rows(conn, "select indexrelid::regclass from pg_index where not indisvalid") == []
        migrate.up(migrator)
    with connect(fresh, "migrate") as conn:
        migrate.up(conn)
    assert catalog(dsn) == catalog(fresh)
    print(*figures, sep="\n")
