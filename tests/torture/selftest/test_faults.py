"""Every fault by its name: it can be applied and healed over and over, and then all is as before."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.migrations.migrate import up
from tests.torture.host import faults
from tests.torture.host.clock import WorkerClock
from tests.torture.host.cluster import Cluster
from tests.torture.host.disk import Disk
from tests.torture.host.faults import HostFault
from tests.torture.host.network import Network
from tests.torture.host.replication import why_not as why_no_standby
from tests.torture.selftest.unsupported import is_unsupported
from tests.torture.selftest.writer import QUICK, Writer
from tests.worker.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

NAMES = [
    *("stop", "crash", "kill", "kill-backend", "failover", "standby-lags", "disk-full", "log-full", "no-connections"),
    *("old-snapshot", "lock-jobs", "lock-instances", "sequences-behind", "refusals", "clock-ahead", "clock-behind"),
    *("cut", "cut-requests", "cut-replies", "worker-clock-ahead", "worker-clock-behind"),
]
MIB = 1024 * 1024
LEFT = "select count(*) from pg_stat_activity where application_name = 'pgflow torture'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server with all that this machine can give it, and pgflow in it."""
    network = None if Network.why_not() else Network()
    try:
        with Cluster(
            settings={**QUICK, "max_connections": "20"},
            standby=None if why_no_standby() else "synchronous",
            network=network,
            disk=None if Disk.why_not() else 512 * MIB,
        ) as cluster:
            with connect(cluster.dsn, "migrate") as conn:
                up(conn)
            faults.install(cluster)
            yield cluster
    finally:
        if network is not None:
            network.close()


@pytest.fixture(scope="module")
def all_faults(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostFault]:
    """All faults, by name."""
    clock = WorkerClock(tmp_path_factory.mktemp("clock") / "clock")
    return {
        **faults.server_faults(cluster),
        **faults.network_faults(cluster.network),
        **faults.clock_faults(clock),
    }


def test_all_faults_exist_and_have_a_description(all_faults: dict[str, HostFault]) -> None:
    assert sorted(all_faults) == sorted(NAMES)
    assert all(name == fault.name and fault.about for name, fault in all_faults.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_can_be_applied_and_healed_repeatedly_and_leaves_nothing(
    cluster: Cluster, all_faults: dict[str, HostFault], name: str
) -> None:
    fault = all_faults[name]
    if is_unsupported(fault.why_not()):
        return
    fault.heal()
    with Writer(cluster.dsn) as writer:
        for _ in range(2):
            fault.apply()
            fault.apply()
            fault.heal()
            fault.heal()
            writer.wait_for_writes()
    assert writer.lost() == set()
    with psycopg.connect(cluster.admin_dsn) as conn:
        until(lambda: conn.execute(LEFT).fetchone() == (0,), "the end of its connections")
        assert conn.execute("select pgflow.now() = statement_timestamp()").fetchone() == (True,)


def test_without_a_network_its_faults_are_unsupported() -> None:
    for fault in faults.network_faults(None).values():
        assert is_unsupported(fault.why_not())
        fault.apply()
        fault.heal()
