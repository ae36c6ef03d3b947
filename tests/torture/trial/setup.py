"""Set up a run: the servers, the proxy and network in front of them, the workers and the callers' connections."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgflow.app import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.migrations import migrate
from tests.torture.host import faults
from tests.torture.host.clock import WorkerClock
from tests.torture.host.cluster import Cluster
from tests.torture.host.disk import Disk
from tests.torture.host.network import Network
from tests.torture.host.replication import why_not as why_no_standby
from tests.torture.install import audit
from tests.torture.wire.proxy import Proxy, upstream_of
from tests.torture.wire.rule import ActiveRule
from tests.torture.workers.fleet import Fleet, WorkerSlot
from tests.torture.workload import flows, steps
from tests.torture.workload.steps import Script
from tests.torture.workload.tasks import TASKS

__all__ = ["Environment", "open_environment"]

DISK_BYTES = 2 * 1024**3  # for the data of each server
MIN_MEMORY = 8 * 1024**3  # available, to keep the disks of two servers in memory


@dataclass
class Environment:
    """Everything that faults act on. `app` and `admin` bypass the proxy and the network.

    `doors` are the proxy's, one for each worker and caller behind it. `faults` are the host's by name; `rules` are the
    proxy's active rules by the name of the fault.
    """

    folder: Path
    cluster: Cluster
    proxy: Proxy
    fleet: Fleet
    app: Pgflow
    doors: Sequence[str]
    callers: Sequence[str]
    faults: Mapping[str, faults.HostFault]
    rules: dict[str, ActiveRule] = field(default_factory=dict)

    def slot(self, aim: Mapping[str, Any]) -> WorkerSlot:
        """Return the worker that a fault is aimed at."""
        return next(each for each in self.fleet.slots if each.name == aim["worker"])

    def follow_primary(self) -> None:
        """Point the proxy at the server that accepts writes."""
        self.proxy.upstream = upstream_of(self.cluster.primary.database_dsn("pgflow"))

    def start_transactional_flows(self) -> None:
        """Start workflows with transactional steps, which are otherwise rare."""
        self.app.start_many(flows.Booking, [(f"rare-{secrets.token_hex(4)}", Script(pause=0.05)) for _ in range(12)])

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """Open a connection of the harness."""
        with connect(self.cluster.admin_dsn, "torture") as conn:
            yield conn


@contextmanager
def open_environment(folder: Path, workers: int, callers: int) -> Iterator[Environment]:
    """Set up everything that this machine supports."""
    for name in ("visited", "fixed"):
        (folder / name).mkdir()
    os.environ[steps.FOLDER] = str(folder)
    with ExitStack() as stack:
        network = stack.enter_context(Network()) if Network.why_not() is None else None
        cluster = stack.enter_context(
            Cluster(
                standby=None if why_no_standby(None) else "synchronous",
                network=network,
                disk=DISK_BYTES if Disk.why_not() is None and _free_memory() >= MIN_MEMORY else None,
            )
        )
        with connect(cluster.dsn, "migrate") as conn:
            migrate.up(conn)
            audit.install(conn, "pgflow")
        faults.install(cluster)
        app = Pgflow(cluster.dsn, workflows=flows.WORKFLOWS, tasks=TASKS, schedules=flows.SCHEDULES)
        stack.callback(app.close)
        app.register()
        proxy = stack.enter_context(Proxy(upstream_of(cluster.primary.database_dsn("pgflow"))))
        ways = {
            name: proxy.door(name).through(cluster.dsn)
            for name in (*_names("worker", workers), *_names("caller", callers))
        }
        slots = [WorkerSlot(name, ways[name], folder / f"{name}.log") for name in _names("worker", workers)]
        clock = WorkerClock(folder / "clock")
        slots[-1].command = clock.command
        if network is not None:  # this worker runs in the network namespace, and does not use the proxy
            slots[-2].prefix, slots[-2].dsn = network.prefix, cluster.peer_dsn
            del ways[slots[-2].name]
        yield Environment(
            folder,
            cluster,
            proxy,
            stack.enter_context(Fleet(folder, slots)),
            app,
            doors=list(ways),
            callers=[ways[name] for name in _names("caller", callers)],
            faults={
                **faults.server_faults(cluster),
                **faults.network_faults(network),
                **faults.clock_faults(clock),
            },
        )


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(1, count + 1)]


def _free_memory() -> int:
    """Return the bytes that processes can use without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
