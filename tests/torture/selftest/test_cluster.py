"""A server is hurt in every way, comes back each time, and has kept all that it had accepted."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgflow.errors import DatabaseError, PgflowError
from tests.torture.host.cluster import Cluster, Outage
from tests.torture.host.probe import write
from tests.torture.selftest.writer import QUICK, Writer
from tests.worker.waiting import BUSY, until

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server of this module's own."""
    with Cluster(settings=QUICK) as cluster:
        yield cluster


def ask(dsn: str, query: str) -> object:
    """Return the one value that a query yields."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query.encode()).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize("hurt", ["restart", "crash", "kill", "kill_backend"])
def test_a_server_that_is_hurt_comes_back_with_all_that_it_accepted(cluster: Cluster, hurt: str) -> None:
    with psycopg.connect(cluster.dsn) as witness, Writer(cluster.dsn) as writer:
        for _ in range(3):
            seconds = getattr(cluster, hurt)()
            assert 0 < seconds < 30
            assert write(cluster.dsn)
            writer.wait_for_writes()
        with pytest.raises(psycopg.OperationalError):
            witness.execute("select 1")
    assert writer.lost() == set()


def test_a_killed_backend_takes_the_others_along_but_not_the_server(cluster: Cluster) -> None:
    before = cluster.primary.pid
    with (
        psycopg.connect(cluster.dsn, application_name="pgflow:client") as other,
        psycopg.connect(cluster.dsn, application_name="pgflow:worker") as worker,
    ):
        pid = worker.info.backend_pid
        cluster.kill_backend("worker")
        assert f"(PID {pid}) was terminated by signal 9" in cluster.primary.log
        with pytest.raises(psycopg.OperationalError):
            other.execute("select 1")
    assert cluster.primary.pid == before


def test_a_backend_that_runs_a_statement_is_killed_first(cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn) as busy, psycopg.connect(cluster.dsn):
        pid = busy.info.backend_pid

        def sleep() -> None:
            with pytest.raises(psycopg.OperationalError):
                busy.execute("select pg_sleep(60)")

        sleeping = threading.Thread(target=sleep)
        sleeping.start()
        looked_for = f"select state = 'active' from pg_stat_activity where pid = {pid}"  # noqa: S608 -- a number
        until(lambda: ask(cluster.admin_dsn, looked_for))
        cluster.kill_backend()
        sleeping.join()
    assert f"(PID {pid}) was terminated by signal 9" in cluster.primary.log


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_a_server_stays_down_until_it_is_brought_up_and_both_may_be_done_twice(cluster: Cluster, how: Outage) -> None:
    for _ in range(2):
        cluster.take_down(how)
        assert not cluster.primary.running
        assert not write(cluster.dsn)
    for _ in range(2):
        cluster.bring_up()
        assert write(cluster.dsn)


def test_a_killed_server_is_not_started_again_before_the_last_of_its_processes_is_gone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that is stopped cannot notice by itself that the first process is gone, and holds the shared memory.
    monkeypatch.setattr("pgflow.embedded.process_tree.GRACE_SECONDS", 0.2)
    with psycopg.connect(cluster.dsn) as held:
        pid = held.info.backend_pid
        stopped = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            cluster.kill()
            assert select.select([stopped], [], [], 0)[0], "it has ended"
        finally:
            os.close(stopped)
    assert write(cluster.dsn)


def test_its_commits_are_durable() -> None:
    with Cluster() as cluster:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            assert ask(cluster.dsn, f"show {name}") == "on"


def test_the_user_is_not_a_superuser(cluster: Cluster) -> None:
    assert ask(cluster.dsn, "show is_superuser") == "off"
    assert ask(cluster.admin_dsn, "show is_superuser") == "on"
    assert ask(cluster.dsn, "select current_database()") == ask(cluster.admin_dsn, "select current_database()")


def test_bring_up_of_a_broken_server_fails_in_time(cluster: Cluster) -> None:
    cluster.take_down("fast")
    control = cluster.primary.data / "global" / "pg_control"
    hidden = control.rename(control.with_name("hidden"))
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="accepted no writes for 1 s") as refused:
        cluster.bring_up(1)
    assert time.monotonic() - began < 1 + BUSY
    assert "pg_control" in str(refused.value.hint)
    hidden.rename(control)
    cluster.bring_up()


def test_without_a_standby_a_disk_or_a_network_their_faults_are_refused(cluster: Cluster) -> None:
    assert cluster.why_no_failover() == "there is no standby"
    with pytest.raises(DatabaseError, match="no standby"):
        cluster.failover()
    assert cluster.why_not_full()
    cluster.fill_disk()
    cluster.free_disk()
    with pytest.raises(PgflowError, match="no network"):
        _ = cluster.peer_dsn
    cluster.pause_replication()
    cluster.resume_replication()


def test_nothing_is_left_of_it() -> None:
    with Cluster(settings=QUICK) as cluster:
        pid, data, host = cluster.primary.pid, cluster.primary.data, Path(cluster.primary.host)
    assert not data.exists()
    assert not host.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
