"""A PostgreSQL to be hurt: restarted, crashed, killed, failed over, filled up; and made whole again each time."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import DatabaseError, PgflowError
from tests.torture.host import replication
from tests.torture.host.disk import Disk
from tests.torture.host.network import Network
from tests.torture.host.probe import write
from tests.torture.host.until import until

__all__ = ["Cluster", "Failover", "Outage", "Standby"]

NAME = "pgflow"  # of the database, and of the ordinary role that owns it
BACK_SECONDS = 60.0
ATTACHED_SECONDS = 5.0  # how long a standby may take to come back after its primary before it is made anew
GLANCE_SECONDS = 0.05
SETTINGS: Mapping[str, str] = {
    **replication.SETTINGS,
    # Nothing that was answered may be lost, and what is lost must not be for this.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "128MB",  # a small disk has to do
    "log_lock_waits": "on",
    "log_line_prefix": "%m [%p] %a: ",  # a checker asks who met a deadlock
}

# The busy ones first.
VICTIMS = """
select a.pid from pg_stat_activity a
where a.backend_type = 'client backend' and a.pid <> all (%s) and a.application_name like %s
order by a.state = 'active' desc nulls last, a.state_change desc
limit 3
"""

LOG_A_MEGABYTE = "select pg_logical_emit_message(false, 'pgflow', repeat('.', 1024 * 1024))"

Outage = Literal["fast", "immediate", "kill"]
Standby = Literal["synchronous", "asynchronous"]


@dataclass(frozen=True, slots=True)
class Failover:
    """What a failover came to.

    `seconds` passed from the primary's death until the standby took writes. `unreplicated` is how many transactions
    the old primary had committed that the new one does not have, as the log tells, None when it does not. With a
    synchronous standby none of them had been answered; with an asynchronous one, those that had been are lost.
    """

    seconds: float
    unreplicated: int | None


class Cluster:
    """One server, or with `standby` two, in temporary folders of their own: for a `with`.

    An ordinary role `pgflow` owns an empty database `pgflow`: `dsn`; `admin_dsn` is the superuser's, in the same
    database. Both name all servers, and lead to the one that takes writes. `settings` are more lines of
    postgresql.conf; `network` is one on which the servers listen, too: `peer_dsn`; `disk` is the size in bytes of a
    file system of its own for each server's data. All that was committed is durable, and it runs as an unprivileged
    account when we are root.

    What hurts may be done over and over, by several threads (one after the other), while it is hurt already. After an
    error, `bring_up()` makes it whole.

        with Cluster(standby="synchronous") as cluster:
            cluster.kill()         # SIGKILL of the postmaster; 0.4 s until it took writes again
            cluster.failover()     # Failover(seconds=0.2, unreplicated=0)
    """

    def __init__(
        self,
        version: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        standby: Standby | None = None,
        network: Network | None = None,
        disk: int | None = None,
    ) -> None:
        self._settings = {**SETTINGS, **(settings or {}), **(network.settings if network else {})}
        self._version = version
        self._standing = standby
        self.network = network
        self._disk_size = disk
        self._disks: list[Disk] = []
        self._nodes: list[EmbeddedPostgres] = []
        self._primary = 0  # which node
        self._is_attached = False  # whether the standby has been made, and is what it should be
        self._lock = threading.RLock()

    @property
    def primary(self) -> EmbeddedPostgres:
        """The server that takes writes."""
        return self._nodes[self._primary]

    @property
    def standby(self) -> EmbeddedPostgres | None:
        """The server that follows it."""
        return self._nodes[1 - self._primary] if len(self._nodes) > 1 else None

    @property
    def dsn(self) -> str:
        """The connection string of the database, as its owner, who is no superuser."""
        return self._dsn(NAME)

    @property
    def admin_dsn(self) -> str:
        """The connection string of the database, as the superuser."""
        return self._dsn("postgres")

    @property
    def peer_dsn(self) -> str:
        """The connection string for the network's other end, as the database's owner."""
        if self.network is None:
            raise PgflowError("the servers listen on no network", hint="Give one: Cluster(network=Network()).")
        return self._compose(NAME, [self.network.server_address] * len(self._nodes))

    @property
    def logs(self) -> list[str]:
        """What each server has written to its log, from its first start on."""
        return [node.log for node in self._nodes]

    def start(self) -> Self:
        """Start it. Raises `ConfigError` when no PostgreSQL is installed, `DatabaseError` when it does not come up."""
        try:
            for _ in range(2 if self._standing else 1):
                self._nodes.append(self._make_node())
            self.primary.start()
            with psycopg.connect(self.primary.dsn, autocommit=True) as conn:
                name = sql.Identifier(NAME)
                conn.execute(sql.SQL("create role {} login").format(name))
                conn.execute(sql.SQL("create database {} owner {}").format(name, name))
            self._attach()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop it, and remove all that it has made."""
        with self._lock:
            for node in self._nodes:
                node.crash()  # there is nothing to be kept
                node.stop()
            for disk in self._disks:
                disk.close()
            self._nodes, self._disks = [], []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def take_down(self, how: Outage) -> None:
        """End the primary: "fast" (in order), "immediate" (SIGQUIT) or "kill" (SIGKILL of the postmaster).

        Returns when its last process is gone. Does nothing when it is down.
        """
        with self._lock:
            match how:
                case "fast":
                    self.primary.halt()
                case "immediate":
                    self.primary.crash()
                case "kill":
                    self.primary.kill()

    def bring_up(self, seconds: float = BACK_SECONDS) -> float:
        """Bring it to where it takes writes, whatever has happened, and return how many seconds that took.

        A primary that is down is started, again and again if need be; a standby that is no longer what it should be, or
        that a primary waits for in vain, is made anew. Raises `DatabaseError` when that does not help within `seconds`.
        """
        began = time.monotonic()
        while True:
            trouble: Exception | None = None
            try:
                with self._lock:
                    if self._mend(is_late=time.monotonic() > began + ATTACHED_SECONDS):
                        return time.monotonic() - began
            except (PgflowError, psycopg.Error) as error:  # its disk is full, it recovers, it has ended just now, …
                trouble = error
            if time.monotonic() > began + seconds:
                said = f"PostgreSQL took no writes for {seconds:g} s"
                raise DatabaseError(said, hint=f"Its log ends with: {self.primary.log[-500:]}") from trouble
            time.sleep(GLANCE_SECONDS)

    def restart(self) -> float:
        """Restart the primary in order, and return how many seconds it took no writes, as do `crash` and `kill`."""
        return self._down_and_up("fast")

    def crash(self) -> float:
        """Restart the primary as after `pg_ctl stop -m immediate`: nothing is written down, and the log recovers it."""
        return self._down_and_up("immediate")

    def kill(self) -> float:
        """Kill the postmaster with SIGKILL, and start it again when the last of its processes is gone."""
        return self._down_and_up("kill")

    def kill_backend(self, role: str = "") -> float:
        """Kill one backend with SIGKILL, for which the server ends all others and recovers; return for how long it did.

        That of a connection that was opened for this `role` ("worker", see `connect.conninfo`), a busy one if there
        is one; without a role any; when there is none, one of our own.
        """
        self.bring_up()
        with self._lock:
            began = time.monotonic()
            with (
                psycopg.connect(self.primary.dsn, autocommit=True) as own,
                psycopg.connect(self.primary.dsn) as witness,
            ):
                ours = [own.info.backend_pid, witness.info.backend_pid]
                found = own.execute(VICTIMS, [ours, f"pgflow:{role}%" if role else "%"]).fetchall()
                for victim in [*(row[0] for row in found), ours[0]]:
                    with suppress(ProcessLookupError):  # it may have ended by itself
                        os.kill(victim, signal.SIGKILL)
                        break
                # The server has noticed when it ends the others; until then it would still take writes.
                if not select.select([witness.fileno()], [], [], BACK_SECONDS)[0]:
                    raise DatabaseError("PostgreSQL did not notice that a backend was killed")
        self.bring_up()
        return time.monotonic() - began

    def why_no_failover(self) -> str | None:
        """Return why `failover` cannot be done; None when it can."""
        return None if self._standing else replication.why_not(self._version) or "there is no standby"

    def failover(self) -> Failover:
        """Kill the primary with SIGKILL, put the standby in its place, and make the old one anew as its standby.

        Raises `DatabaseError` when there is no standby, or it does not take over: `bring_up()` starts the old primary
        then. All is over when this returns; a standby, too, is there again.
        """
        with self._lock:
            if self.standby is None:
                raise DatabaseError("there is no standby", hint="Cluster(standby='synchronous') has one.")
            if not self._is_followed:
                self.bring_up()
            old, new = self.primary, self.standby
            self._is_attached = False
            began = time.monotonic()
            old.kill()
            replication.promote(new)
            self._primary = 1 - self._primary
            until(lambda: write(new.dsn), "a write on the new primary")
            seconds = time.monotonic() - began
            unreplicated = replication.count_unreplicated(old, new)
            self.bring_up()
            return Failover(seconds, unreplicated)

    def hold_back(self) -> None:
        """Let nothing more arrive at the standby: an asynchronous one falls behind, a synchronous one is waited for."""
        with self._lock:
            if self.standby is not None and self.standby.running:
                replication.hold_back(self.standby)

    def let_go(self) -> None:
        """End that. Does nothing when nothing is held back."""
        with self._lock:
            if self.standby is not None and self.standby.running:
                replication.let_go(self.primary, self.standby)

    def why_not_full(self) -> str | None:
        """Return why the disk cannot be full here; None when it can."""
        return None if self._disks else Disk.why_not() or "the server has no disk of its own"

    def fill_disk(self) -> None:
        """Leave no byte free where the primary's data and log lie. Does nothing without a disk of its own."""
        for disk in self._disks[self._primary : self._primary + 1]:
            disk.fill()

    def fill_log(self) -> None:
        """Fill the disk, and write to the log until there is no more room for it, for which the server crashes."""
        self.fill_disk()
        if self._disks:
            with suppress(psycopg.Error), psycopg.connect(self.primary.dsn, autocommit=True) as conn:
                while True:
                    conn.execute(LOG_A_MEGABYTE)

    def free_disk(self) -> None:
        """End that. A server that could not write its log has ended by then, or tries to recover: `bring_up()`."""
        for disk in self._disks:
            disk.free()

    @property
    def _is_followed(self) -> bool:
        """Whether all is there that should be: nothing is lacking where no standby was asked for."""
        return self.standby is None or (self._is_attached and self.standby.running)

    def _down_and_up(self, how: Outage) -> float:
        began = time.monotonic()
        self.take_down(how)
        self.bring_up()
        return time.monotonic() - began

    def _mend(self, *, is_late: bool) -> bool:
        """Do what can be done for it now, and return whether it was whole before that.

        While it is not late, a commit that does not come back waits for a standby that is on its way.
        """
        self.primary.start()
        is_up = write(self.primary.dsn)
        if is_up and self._is_followed:
            return True
        waits = self._standing == "synchronous" and is_late and not replication.is_attached(self.primary)
        if not self._is_followed or waits:
            self._attach()
        return False

    def _attach(self) -> None:
        if self.standby is not None:
            self._is_attached = False
            replication.attach(self.primary, self.standby, synchronous=self._standing == "synchronous")
            self._is_attached = True

    def _make_node(self) -> EmbeddedPostgres:
        settings = dict(self._settings)
        if self.network is not None:
            settings["port"] = str(_free_port(self.network.server_address))
        if self._disk_size is not None:
            self._disks.append(Disk(self._disk_size))
        return EmbeddedPostgres(self._version, settings, data_root=self._disks[-1].path if self._disks else None)

    def _dsn(self, user: str) -> str:
        return self._compose(user, [node.host for node in self._nodes])

    def _compose(self, user: str, hosts: Sequence[str]) -> str:
        ports = [node.port for node in self._nodes]
        parts = {"host": ",".join(hosts), "port": ",".join(ports), "user": user, "dbname": NAME}
        if len(hosts) > 1:
            parts["target_session_attrs"] = "read-write"
        return make_conninfo("", **parts)


def _free_port(address: str) -> int:
    with socket.socket() as held:
        held.bind((address, 0))
        return int(held.getsockname()[1])
