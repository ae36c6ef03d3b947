"""Connections are all taken, a transaction is forgotten, a table is locked: each for a while, and then no longer."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.torture.host.cluster import Cluster
from tests.torture.host.resource_faults import Exhaustion, ForgottenTransaction, TableLock
from tests.torture.selftest.writer import QUICK
from tests.worker.waiting import until

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server with few connections, and a table in the schema "held"."""
    with Cluster(settings={**QUICK, "max_connections": "12", "autovacuum": "off"}) as cluster:
        with psycopg.connect(cluster.dsn) as conn:
            conn.execute("create schema held")
            conn.execute("create table held.things as select generate_series(1, 1000) as number")
        yield cluster


def can_connect(dsn: str) -> bool:
    """Whether the server has a connection left."""
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        if "connection slots" in str(error) or "too many clients" in str(error):
            return False
        raise
    return True


def test_when_all_connections_are_in_use_only_the_superuser_can_connect_and_sessions_continue(
    cluster: Cluster,
) -> None:
    exhaustion = Exhaustion(cluster.dsn)
    with psycopg.connect(cluster.dsn, autocommit=True) as kept, psycopg.connect(cluster.dsn) as given_up:
        try:
            for _ in range(2):
                exhaustion.apply()
                assert not can_connect(cluster.dsn)
            assert can_connect(cluster.admin_dsn)
            kept.execute("select 1")
            mine = "select count(*) from pg_stat_activity where application_name = 'pgflow torture'"
            row = kept.execute(mine).fetchone()
            given_up.close()
            until(lambda: kept.execute(mine).fetchone() != row, "the taking of the freed connection")
            assert not can_connect(cluster.dsn)
        finally:
            for _ in range(2):
                exhaustion.heal()
    until(lambda: can_connect(cluster.dsn), "a connection")


def test_an_exhaustion_survives_a_restart_of_the_server_and_can_be_healed(cluster: Cluster) -> None:
    exhaustion = Exhaustion(cluster.dsn)
    try:
        exhaustion.apply()
        cluster.crash()
        until(lambda: not can_connect(cluster.dsn), "the taking")
    finally:
        exhaustion.heal()
    until(lambda: can_connect(cluster.dsn), "a connection")


def test_a_forgotten_transaction_keeps_deleted_rows(cluster: Cluster) -> None:
    forgotten = ForgottenTransaction(cluster.admin_dsn)
    with psycopg.connect(cluster.dsn, autocommit=True) as conn:
        conn.execute("create table held.cleared as select generate_series(1, 1000) as number")

        def pages() -> object:
            conn.execute("vacuum held.cleared")
            row = conn.execute("select pg_relation_size('held.cleared')").fetchone()
            return row and row[0]

        for _ in range(2):
            forgotten.apply()
        conn.execute("delete from held.cleared")  # it does not wait for a lock
        try:
            assert pages() != 0
        finally:
            for _ in range(2):
                forgotten.heal()
        until(lambda: pages() == 0, "the removal of dead rows")


def test_a_locked_table_cannot_be_read_until_the_lock_is_released(cluster: Cluster) -> None:
    lock = TableLock(cluster.admin_dsn, "things", "held")
    with psycopg.connect(cluster.dsn, autocommit=True) as conn:
        conn.execute("set lock_timeout = 100")
        for _ in range(2):
            lock.apply()
        try:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                conn.execute("select count(*) from held.things")
        finally:
            for _ in range(2):
                lock.heal()
        until(lambda: conn.execute("select count(*) from held.things").fetchone() == (1000,), "the table")


def test_a_failed_lock_leaves_nothing(cluster: Cluster) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        TableLock(cluster.admin_dsn, "nothing", "held").apply()
    with psycopg.connect(cluster.admin_dsn) as conn:
        mine = "select count(*) from pg_stat_activity where application_name = 'pgflow torture'"
        until(lambda: conn.execute(mine).fetchone() == (0,), "the end of its connection")


@pytest.mark.parametrize("kind", [ForgottenTransaction, Exhaustion])
def test_it_can_be_healed_and_applied_again_though_the_server_has_crashed(
    cluster: Cluster, kind: type[ForgottenTransaction | Exhaustion]
) -> None:
    held = kind(cluster.dsn)
    held.apply()
    cluster.take_down("kill")
    held.heal()
    cluster.bring_up()
    held.apply()
    held.heal()
    until(lambda: can_connect(cluster.dsn), "a connection")
