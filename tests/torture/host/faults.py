"""The faults of a server, its network and the clocks, by name.

A fault has two functions, `apply` and `heal`, which may be called at any time, in any order and repeatedly, while
others are active. Healing a fault that stops the server starts it, whatever stopped it; that fails while its disk is
full. When all are healed, everything is restored.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import psycopg

from pgflow.database.connect import connect
from pgflow.database.files import SCHEMA
from pgflow.database.statement import run
from tests.torture.host.clock import WorkerClock, move_clock
from tests.torture.host.cluster import Cluster, Outage
from tests.torture.host.network import Cut, Network
from tests.torture.host.resource_faults import Exhaustion, ForgottenTransaction, SequencesBehind, TableLock
from tests.torture.host.until import until
from tests.torture.install import debug

__all__ = ["HostFault", "clock_faults", "install", "network_faults", "server_faults"]

HEAL_SECONDS = 60.0
CLOCK_JUMP = timedelta(
    seconds=20
)  # longer than each lease, and short enough that jobs scheduled by the wrong clock are due soon
WORKER_CLOCK_JUMP = timedelta(hours=3)
REFUSED = 0.05  # share of all writing statements


@dataclass(frozen=True, slots=True)
class HostFault:
    """A fault with a description (`about`).

    `why_not` returns why this machine does not support it, None when it does. `apply` raises `PgflowError` or
    `psycopg.Error` when another active fault prevents it. `heal` waits until the fault has no effect, and raises after
    a minute.
    """

    name: str
    about: str
    apply: Callable[[], object]
    heal: Callable[[], object]
    why_not: Callable[[], str | None] = lambda: None


def install(cluster: Cluster, schema: str = SCHEMA) -> None:
    """Install what the faults "refusals" and "clock-…" need in a schema of pgflow."""
    with connect(cluster.admin_dsn, "torture") as conn:
        debug.install_clock(conn, schema)
        debug.install_refusals(conn, schema)


def server_faults(cluster: Cluster, schema: str = SCHEMA) -> Mapping[str, HostFault]:
    """Return the faults of a server, by their names.

    for fault in server_faults(cluster).values():
        if fault.why_not() is None:
            fault.apply()
            fault.heal()
    """
    found = [*_outages(cluster), *_shortages(cluster), *_resources(cluster, schema), *_debug_faults(cluster, schema)]
    return {fault.name: fault for fault in found}


def network_faults(network: Network | None) -> Mapping[str, HostFault]:
    """Return the faults of the network between the server and the processes behind `network.prefix`, by name.

    Without a network, each only has the reason.
    """
    cuts: Mapping[Cut, str] = {
        "both": "packets are dropped silently in both directions",
        "requests": "packets to the server are dropped silently",
        "replies": "packets from the server are dropped silently",
    }
    return {fault.name: fault for fault in (_cut(network, what, about) for what, about in cuts.items())}


def clock_faults(clock: WorkerClock) -> Mapping[str, HostFault]:
    """Return the faults of the wall clock of processes started with `clock.command`, by name."""
    hours = WORKER_CLOCK_JUMP / timedelta(hours=1)
    jumps = {"ahead": WORKER_CLOCK_JUMP, "behind": -WORKER_CLOCK_JUMP}
    found = [
        HostFault(
            f"worker-clock-{where}",
            f"a worker's clock is {hours:g} hours {where}",
            partial(clock.jump, by),
            partial(clock.jump, timedelta(0)),
        )
        for where, by in jumps.items()
    ]
    return {fault.name: fault for fault in found}


def _outages(cluster: Cluster) -> Iterator[HostFault]:
    hows: Mapping[Outage, tuple[str, str]] = {
        "fast": ("stop", "the server is stopped gracefully"),
        "immediate": ("crash", "the server is stopped by SIGQUIT, as by pg_ctl -m immediate"),
        "kill": ("kill", "the postmaster is killed with SIGKILL"),
    }
    for how, (name, about) in hows.items():
        yield HostFault(name, about, partial(cluster.take_down, how), cluster.bring_up)
    about = "a worker's backend is killed with SIGKILL: the server terminates all others and recovers"
    yield HostFault("kill-backend", about, partial(cluster.kill_backend, "worker"), cluster.bring_up)
    about = "the primary is killed with SIGKILL and its standby takes over"
    yield HostFault("failover", about, cluster.failover, cluster.bring_up, cluster.why_no_failover)
    about = "replication to the standby is paused, and each commit waits if the standby is synchronous"
    yield HostFault(
        "standby-lags", about, cluster.pause_replication, cluster.resume_replication, cluster.why_no_failover
    )


def _shortages(cluster: Cluster) -> Iterator[HostFault]:
    def free_disk() -> None:
        cluster.free_disk()
        cluster.bring_up()

    about = "the disk with the server's data and WAL is full"
    yield HostFault("disk-full", about, cluster.fill_disk, free_disk, cluster.why_not_full)
    about = "the disk is full, and the server crashes because it cannot write WAL"
    yield HostFault("log-full", about, cluster.fill_log, free_disk, cluster.why_not_full)
    exhaustion = Exhaustion(cluster.dsn)
    yield HostFault("no-connections", "all connections are in use", exhaustion.apply, exhaustion.heal)


def _resources(cluster: Cluster, schema: str) -> Iterator[HostFault]:
    forgotten = ForgottenTransaction(cluster.admin_dsn)
    about = "an idle transaction keeps dead rows from being removed"
    yield HostFault("old-snapshot", about, forgotten.apply, forgotten.heal)
    for table in ("jobs", "instances"):
        lock = TableLock(cluster.admin_dsn, table, schema)
        yield HostFault(f"lock-{table}", f"the table {table} is locked exclusively", lock.apply, lock.heal)
    sequences = SequencesBehind(cluster.admin_dsn, schema)
    about = "the sequences of all identity columns return used values"
    yield HostFault("sequences-behind", about, sequences.apply, partial(_retry, sequences.heal))


def _debug_faults(cluster: Cluster, schema: str) -> Iterator[HostFault]:
    def refuse(chance: float) -> None:
        with psycopg.connect(cluster.admin_dsn, autocommit=True) as conn:
            run(conn, debug.refuse(chance, schema))

    about = "statements that write fail at random with 40001, 40P01 or 55P03"
    yield HostFault("refusals", about, partial(refuse, REFUSED), partial(_retry, partial(refuse, 0)))

    def move(by: timedelta) -> None:
        move_clock(cluster.admin_dsn, by, schema)

    def restore_clock() -> None:
        _retry(partial(move, timedelta(0)))

    for where, by in {"ahead": CLOCK_JUMP, "behind": -CLOCK_JUMP}.items():
        about = f"the server's clock is {CLOCK_JUMP.seconds} s {where}"
        yield HostFault(f"clock-{where}", about, partial(move, by), restore_clock)


def _cut(network: Network | None, what: Cut, about: str) -> HostFault:
    def cut() -> None:
        if network is not None:
            network.cut(what)

    def heal() -> None:
        if network is not None:
            network.heal()

    def why_not() -> str | None:
        return None if network is not None else Network.why_not() or "there is no network"

    return HostFault("cut" if what == "both" else f"cut-{what}", about, cut, heal, why_not)


def _retry(act: Callable[[], object]) -> None:
    """Repeat an action until the database is reachable."""

    def is_done() -> bool:
        try:
            act()
        except psycopg.OperationalError:
            return False
        return True

    until(is_done, "the database to be reachable", HEAL_SECONDS)
