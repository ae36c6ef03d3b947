"""A standby takes over, again and again: a synchronous one has all that was accepted, an asynchronous one may not."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgflow.database.connect import connect
from pgflow.embedded import find_installations
from tests.torture.host import replication
from tests.torture.host.cluster import Cluster
from tests.torture.host.probe import write
from tests.torture.selftest.unsupported import is_unsupported
from tests.torture.selftest.writer import QUICK, Writer

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

VERSIONS = sorted({each.version for each in find_installations()})


@pytest.fixture(scope="module")
def synchronous() -> Iterator[Cluster | None]:
    """Two servers, of which the second has all that the first has accepted."""
    if replication.why_not():
        yield None
    else:
        with Cluster(settings=QUICK, standby="synchronous") as cluster:
            yield cluster


def test_a_synchronous_standby_that_takes_over_has_lost_nothing_over_and_over(is_long: bool) -> None:
    for version in VERSIONS if is_long else VERSIONS[-1:]:
        if is_unsupported(replication.why_not(version)):
            continue
        with Cluster(version, QUICK, standby="synchronous") as cluster:
            with Writer(cluster.dsn) as writer:
                for _ in range(2):
                    before = cluster.primary
                    done = cluster.failover()
                    assert cluster.primary is not before
                    assert 0 < done.seconds < 60
                    assert done.unreplicated is None or done.unreplicated <= 1  # one was on its way
                    writer.wait_for_writes()
            assert writer.lost() == set()


def test_a_standby_that_was_held_back_has_lost_the_last_commits_and_their_number_is_known() -> None:
    if is_unsupported(replication.why_not()):
        return
    with Cluster(settings=QUICK, standby="asynchronous") as cluster:
        with Writer(cluster.dsn) as writer:
            cluster.pause_replication()
            cluster.pause_replication()
            writer.wait_for_writes(50)
            done = cluster.failover()
            writer.wait_for_writes()
        lost = writer.lost()
        assert len(lost) >= 50
        assert done.unreplicated is None or len(lost) <= done.unreplicated <= len(lost) + 1
        assert cluster.failover().unreplicated in {0, None}


def test_without_a_word_about_the_host_clients_find_the_primary(synchronous: Cluster | None) -> None:
    if synchronous is None:
        return
    hosts = str(conninfo_to_dict(synchronous.dsn)["host"]).split(",")
    seen = set()
    for _ in range(2):
        with psycopg.connect(synchronous.dsn) as plain, connect(synchronous.dsn, "worker") as ours:
            for conn in (plain, ours):
                row = conn.execute("select pg_is_in_recovery()").fetchone()
                assert row == (False,)
                assert conn.info.host == synchronous.primary.host
            seen.add(plain.info.host)
        synchronous.failover()
    assert seen == set(hosts)


def test_a_commit_waits_for_a_synchronous_standby_that_is_held_back_and_for_no_other(
    synchronous: Cluster | None,
) -> None:
    if synchronous is None:
        return
    synchronous.pause_replication()
    assert not write(synchronous.admin_dsn, 0.5)
    synchronous.resume_replication()
    synchronous.resume_replication()
    assert write(synchronous.admin_dsn)


@pytest.mark.parametrize("hurt", ["restart", "crash", "kill", "kill_backend"])
def test_a_primary_with_a_standby_suffers_the_same_faults(synchronous: Cluster | None, hurt: str) -> None:
    if synchronous is None:
        return
    with Writer(synchronous.dsn) as writer:
        getattr(synchronous, hurt)()
        writer.wait_for_writes()
        synchronous.failover()
        writer.wait_for_writes()
    assert writer.lost() == set()


def test_a_dead_standby_is_rebuilt(synchronous: Cluster | None) -> None:
    if synchronous is None:
        return
    assert synchronous.standby is not None
    with Writer(synchronous.dsn) as writer:
        synchronous.standby.kill()
        synchronous.bring_up()
        writer.wait_for_writes()
        synchronous.failover()
        writer.wait_for_writes()
    assert writer.lost() == set()


def test_a_paused_standby_is_rebuilt_when_commits_wait_for_it_too_long(
    synchronous: Cluster | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if synchronous is None:
        return
    monkeypatch.setattr("tests.torture.host.cluster.ATTACHED_SECONDS", 0.5)
    synchronous.pause_replication()
    synchronous.bring_up()
    assert write(synchronous.admin_dsn)
