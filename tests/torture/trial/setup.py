"""Where it takes place: the server, the ways to it, the workers and the callers, in one hand."""

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
from tests.torture.wire.rule import Fault as Ruling
from tests.torture.workers.fleet import Fleet, WorkerSlot
from tests.torture.workload import flows
from tests.torture.workload.flows import Script

__all__ = ["Arena", "opened"]

DISK_BYTES = 2 * 1024**3  # for the data of each server
LEAST_MEMORY = 8 * 1024**3  # free, for the disks of two servers in it


@dataclass
class Arena:
    """All that harm can be done to. `app` and `admin` go straight to the server, past everything that is disturbed.

    `doors` are the proxy's, one for each worker and caller that comes through it; `faults` those of the host by their
    names, and `rules` what the proxy is doing now, by the name of the harm.
    """

    folder: Path
    cluster: Cluster
    proxy: Proxy
    fleet: Fleet
    app: Pgflow
    doors: Sequence[str]
    callers: Sequence[str]
    faults: Mapping[str, faults.Fault]
    rules: dict[str, Ruling] = field(default_factory=dict)

    def berth(self, aim: Mapping[str, Any]) -> WorkerSlot:
        """The worker that something is aimed at."""
        return next(each for each in self.fleet.berths if each.name == aim["worker"])

    def lead(self) -> None:
        """Let the proxy lead to the server that takes writes."""
        self.proxy.upstream = upstream_of(self.cluster.primary.database_dsn("pgflow"))

    def lay_bait(self) -> None:
        """Start some of what is rare, so that it is met soon."""
        self.app.start_many(flows.Booking, [(f"bait-{secrets.token_hex(4)}", Script(pause=0.05)) for _ in range(12)])

    @contextmanager
    def admin(self) -> Iterator[Connection]:
        """A connection of the harness's own."""
        with connect(self.cluster.admin_dsn, "torture") as conn:
            yield conn


@contextmanager
def opened(folder: Path, workers: int, callers: int) -> Iterator[Arena]:
    """Set everything up: as much of it as this machine can have."""
    for name in ("marks", "mended"):
        (folder / name).mkdir()
    os.environ[flows.FOLDER] = str(folder)
    with ExitStack() as stack:
        network = stack.enter_context(Network()) if Network.why_not() is None else None
        cluster = stack.enter_context(
            Cluster(
                standby=None if why_no_standby(None) else "synchronous",
                network=network,
                disk=DISK_BYTES if Disk.why_not() is None and _free_memory() >= LEAST_MEMORY else None,
            )
        )
        with connect(cluster.dsn, "migrate") as conn:
            migrate.up(conn)
            audit.install(conn, "pgflow")
        faults.install(cluster)
        app = Pgflow(cluster.dsn, workflows=flows.WORKFLOWS)
        stack.callback(app.close)
        app.register()
        proxy = stack.enter_context(Proxy(upstream_of(cluster.primary.database_dsn("pgflow"))))
        ways = {
            name: proxy.door(name).through(cluster.dsn)
            for name in (*_names("worker", workers), *_names("caller", callers))
        }
        berths = [WorkerSlot(name, ways[name], folder / f"{name}.log") for name in _names("worker", workers)]
        clock = WorkerClock(folder / "clock")
        berths[-1].command = clock.command
        if network is not None:  # one of them lives at the far end of a cable, and comes through no proxy
            berths[-2].prefix, berths[-2].dsn = network.prefix, cluster.peer_dsn
            del ways[berths[-2].name]
        yield Arena(
            folder,
            cluster,
            proxy,
            stack.enter_context(Fleet(folder, berths)),
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
    """Bytes that processes could have without anything being swapped out."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
