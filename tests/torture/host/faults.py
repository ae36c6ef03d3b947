"""Every fault that a server, the way to it and the clocks can suffer, by name, for a nemesis to apply and to heal.

A fault is applied and healed by two functions that may be called at any time, in any order and any number of times,
while others are in force. To heal one that ends the server is to bring it up, whatever else had ended it; that cannot
be done while its disk is full. When all have been healed, nothing is left.
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

__all__ = ["Fault", "clock_faults", "install", "network_faults", "server_faults"]

HEAL_SECONDS = 60.0
CLOCK_JUMP = timedelta(seconds=20)  # beyond each lease; and what is due by a clock that was wrong still comes soon
WORKER_CLOCK_JUMP = timedelta(hours=3)
REFUSED = 0.05  # of all statements that write


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: `apply` makes it so, `heal` makes it good.

    `about` says what it is, for a report, `why_not` why it cannot be had here; None when it can. `apply` raises
    `PgflowError` or `psycopg.Error` when another fault is in its way: then it has not been applied. `heal` waits until
    all is well as far as this fault goes, a minute at most, and raises after that. What `apply` returns is for the
    record.
    """

    name: str
    about: str
    apply: Callable[[], object]
    heal: Callable[[], object]
    why_not: Callable[[], str | None] = lambda: None


def install(cluster: Cluster, schema: str = SCHEMA) -> None:
    """Put into the schema what the faults "refusals" and "clock-…" need, once pgflow is installed there."""
    with connect(cluster.admin_dsn, "torture") as conn:
        debug.install_clock(conn, schema)
        debug.install_refusals(conn, schema)


def server_faults(cluster: Cluster, schema: str = SCHEMA) -> Mapping[str, Fault]:
    """Return the faults of a server, by their names.

    for fault in server_faults(cluster).values():
        if fault.why_not() is None:
            fault.apply()
            fault.heal()
    """
    found = [*_outages(cluster), *_shortages(cluster), *_hands(cluster, schema), *_lies(cluster, schema)]
    return {fault.name: fault for fault in found}


def network_faults(network: Network | None) -> Mapping[str, Fault]:
    """Return the faults of the network between the server and whoever runs behind `network.prefix`, by their names.

    Without a network they only say why there is none.
    """
    whats: Mapping[Cut, str] = {
        "both": "nothing arrives, in either direction, and nobody is told",
        "requests": "nothing arrives at the server, and nobody is told",
        "replies": "nothing arrives from the server, and nobody is told",
    }
    return {fault.name: fault for fault in (_cut(network, what, about) for what, about in whats.items())}


def clock_faults(clock: WorkerClock) -> Mapping[str, Fault]:
    """Return the faults of the wall clock of whoever was started with `clock.command`, by their names."""
    hours = WORKER_CLOCK_JUMP / timedelta(hours=1)
    jumps = {"ahead": WORKER_CLOCK_JUMP, "behind": -WORKER_CLOCK_JUMP}
    found = [
        Fault(
            f"worker-clock-{where}",
            f"a worker's clock is {hours:g} hours {where}",
            partial(clock.jump, by),
            partial(clock.jump, timedelta(0)),
        )
        for where, by in jumps.items()
    ]
    return {fault.name: fault for fault in found}


def _outages(cluster: Cluster) -> Iterator[Fault]:
    hows: Mapping[Outage, tuple[str, str]] = {
        "fast": ("stop", "the server is stopped in order"),
        "immediate": ("crash", "the server is stopped by SIGQUIT, as by pg_ctl -m immediate"),
        "kill": ("kill", "the postmaster is killed with SIGKILL"),
    }
    for how, (name, about) in hows.items():
        yield Fault(name, about, partial(cluster.take_down, how), cluster.bring_up)
    about = "a worker's backend is killed with SIGKILL: the server ends all others and recovers"
    yield Fault("kill-backend", about, partial(cluster.kill_backend, "worker"), cluster.bring_up)
    about = "the primary is killed with SIGKILL and its standby takes over"
    yield Fault("failover", about, cluster.failover, cluster.bring_up, cluster.why_no_failover)
    about = "the log does not reach the standby, and each commit waits for it if it is a synchronous one"
    yield Fault("standby-lags", about, cluster.hold_back, cluster.let_go, cluster.why_no_failover)


def _shortages(cluster: Cluster) -> Iterator[Fault]:
    def free_disk() -> None:
        cluster.free_disk()
        cluster.bring_up()

    about = "no byte is left for the server's data and its log"
    yield Fault("disk-full", about, cluster.fill_disk, free_disk, cluster.why_not_full)
    about = "no byte is left for the server's log, and it ends for that"
    yield Fault("log-full", about, cluster.fill_log, free_disk, cluster.why_not_full)
    exhaustion = Exhaustion(cluster.dsn)
    yield Fault("no-connections", "all connections are taken", exhaustion.apply, exhaustion.heal)


def _hands(cluster: Cluster, schema: str) -> Iterator[Fault]:
    forgotten = ForgottenTransaction(cluster.admin_dsn)
    about = "a transaction is left open, and nothing that is older can be cleared away"
    yield Fault("old-snapshot", about, forgotten.apply, forgotten.heal)
    for table in ("jobs", "instances"):
        lock = TableLock(cluster.admin_dsn, table, schema)
        yield Fault(f"lock-{table}", f"somebody has locked the table {table}", lock.apply, lock.heal)
    sequences = SequencesBehind(cluster.admin_dsn, schema)
    about = "the sequences of all identity columns give out values that are in use"
    yield Fault("sequences-behind", about, sequences.apply, partial(_insist, sequences.heal))


def _lies(cluster: Cluster, schema: str) -> Iterator[Fault]:
    def refuse(chance: float) -> None:
        with psycopg.connect(cluster.admin_dsn, autocommit=True) as conn:
            run(conn, debug.refuse(chance, schema))

    about = "statements that write fail at random with 40001, 40P01 or 55P03"
    yield Fault("refusals", about, partial(refuse, REFUSED), partial(_insist, partial(refuse, 0)))

    def move(by: timedelta) -> None:
        move_clock(cluster.admin_dsn, by, schema)

    def set_right() -> None:
        _insist(partial(move, timedelta(0)))

    for where, by in {"ahead": CLOCK_JUMP, "behind": -CLOCK_JUMP}.items():
        about = f"the server's clock is {CLOCK_JUMP.seconds} s {where}"
        yield Fault(f"clock-{where}", about, partial(move, by), set_right)


def _cut(network: Network | None, what: Cut, about: str) -> Fault:
    def cut() -> None:
        if network is not None:
            network.cut(what)

    def heal() -> None:
        if network is not None:
            network.heal()

    def why_not() -> str | None:
        return None if network is not None else Network.why_not() or "there is no network between them"

    return Fault("cut" if what == "both" else f"cut-{what}", about, cut, heal, why_not)


def _insist(act: Callable[[], object]) -> None:
    """Do something in the database even if it is down just now."""

    def is_done() -> bool:
        try:
            act()
        except psycopg.OperationalError:
            return False
        return True

    until(is_done, "the database to be reached", HEAL_SECONDS)
