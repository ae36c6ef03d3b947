"""A PostgreSQL cluster that can be restarted, crashed, killed, failed over and filled up, and repairs itself."""

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
ATTACHED_SECONDS = 5.0  # a standby that takes longer to reconnect is rebuilt
POLL_SECONDS = 0.05
SETTINGS: Mapping[str, str] = {
    **replication.SETTINGS,
    # No confirmed commit may be lost, so durability must be on.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "128MB",  # for a small disk
    "log_lock_waits": "on",
    "log_line_prefix": "%m [%p] %a: ",  # the checker reads which session met a deadlock
}

# Active sessions first.
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
    """The result of a failover.

    `seconds` passed from the kill of the primary until the standby accepted writes. `unreplicated` is how many
    transactions of the old primary's WAL the new one does not have, None when unknown. With a synchronous standby none
    of them had been confirmed; with an asynchronous one, confirmed ones are lost.
    """

    seconds: float
    unreplicated: int | None


class Cluster:
    """One server, or two with `standby`, in temporary folders; a context manager.

    An ordinary role `pgflow` owns an empty database `pgflow` (`dsn`); `admin_dsn` is the superuser's, for the same
    database. Both list all servers and connect to the one that accepts writes. `settings` extend postgresql.conf. The
    servers also listen on `network`, if given (`peer_dsn`); `disk` is the size in bytes of a file system for each
    server's data. Commits are durable. As root, the servers run as an unprivileged account.

    Faults may be applied repeatedly and from several threads (serialized), also while others are active. `bring_up()`
    repairs everything after an error.

        with Cluster(standby="synchronous") as cluster:
            cluster.kill()         # SIGKILL of the postmaster; 0.4 s until it accepted writes again
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
        self._is_attached = False  # whether the standby exists and is intact
        self._lock = threading.RLock()

    @property
    def primary(self) -> EmbeddedPostgres:
        """The server that accepts writes."""
        return self._nodes[self._primary]

    @property
    def standby(self) -> EmbeddedPostgres | None:
        """The server that replicates from it."""
        return self._nodes[1 - self._primary] if len(self._nodes) > 1 else None

    @property
    def dsn(self) -> str:
        """The connection string of the database, as its owner, an ordinary role."""
        return self._dsn(NAME)

    @property
    def admin_dsn(self) -> str:
        """The connection string of the database, as the superuser."""
        return self._dsn("postgres")

    @property
    def peer_dsn(self) -> str:
        """The connection string for the peer of the network, as the database's owner."""
        if self.network is None:
            raise PgflowError("the servers listen on no network", hint="Give one: Cluster(network=Network()).")
        return self._compose(NAME, [self.network.server_address] * len(self._nodes))

    @property
    def logs(self) -> list[str]:
        """Each server's log since its first start."""
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
        """Stop it, and remove everything that it created."""
        with self._lock:
            for node in self._nodes:
                node.crash()  # nothing has to be kept
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
        """Stop the primary: "fast" (gracefully), "immediate" (SIGQUIT) or "kill" (SIGKILL of the postmaster).

        Returns when its last process has ended. Does nothing when it is down.
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
        """Repair it until it accepts writes, and return how many seconds that took.

        Starts a primary that is down, repeatedly if necessary, and rebuilds a standby that is not intact or does not
        reconnect. Raises `DatabaseError` when it accepts no writes within `seconds`.
        """
        began = time.monotonic()
        while True:
            trouble: Exception | None = None
            try:
                with self._lock:
                    if self._repair(is_late=time.monotonic() > began + ATTACHED_SECONDS):
                        return time.monotonic() - began
            except (PgflowError, psycopg.Error) as error:  # its disk is full, it is recovering, it has just ended, …
                trouble = error
            if time.monotonic() > began + seconds:
                message = f"PostgreSQL accepted no writes for {seconds:g} s"
                raise DatabaseError(message, hint=f"Its log ends with: {self.primary.log[-500:]}") from trouble
            time.sleep(POLL_SECONDS)

    def restart(self) -> float:
        """Restart the primary gracefully. Returns how many seconds it accepted no writes, like `crash` and `kill`."""
        return self._down_and_up("fast")

    def crash(self) -> float:
        """Restart the primary as after `pg_ctl stop -m immediate`: without a checkpoint, it recovers from the WAL."""
        return self._down_and_up("immediate")

    def kill(self) -> float:
        """Kill the postmaster with SIGKILL, and start it again when its last process has ended."""
        return self._down_and_up("kill")

    def kill_backend(self, role: str = "") -> float:
        """Kill one backend with SIGKILL, so that the server terminates all others and recovers; return the seconds.

        Prefers an active session of this `role` ("worker", see `connect.conninfo`), or of any role without one; if
        there is none, kills our own.
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
                    with suppress(ProcessLookupError):  # it may have ended already
                        os.kill(victim, signal.SIGKILL)
                        break
                # The server has noticed once it terminates the others; until then it still accepts writes.
                if not select.select([witness.fileno()], [], [], BACK_SECONDS)[0]:
                    raise DatabaseError("PostgreSQL did not react to the kill of a backend")
        self.bring_up()
        return time.monotonic() - began

    def why_no_failover(self) -> str | None:
        """Return why `failover` is not possible; None when it is."""
        return None if self._standing else replication.why_not(self._version) or "there is no standby"

    def failover(self) -> Failover:
        """Kill the primary with SIGKILL, promote the standby, and rebuild the old primary as its standby.

        Raises `DatabaseError` when there is no standby or its promotion fails; `bring_up()` then starts the old
        primary. When this returns, the new standby is ready.
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

    def pause_replication(self) -> None:
        """Pause replication: an asynchronous standby falls behind, commits wait for a synchronous one."""
        with self._lock:
            if self.standby is not None and self.standby.running:
                replication.pause_replication(self.standby)

    def resume_replication(self) -> None:
        """Resume replication."""
        with self._lock:
            if self.standby is not None and self.standby.running:
                replication.resume_replication(self.primary, self.standby)

    def why_not_full(self) -> str | None:
        """Return why the disk cannot be filled; None when it can."""
        return None if self._disks else Disk.why_not() or "the server has no disk of its own"

    def fill_disk(self) -> None:
        """Fill the disk of the primary's data and WAL. Does nothing without a disk of its own."""
        for disk in self._disks[self._primary : self._primary + 1]:
            disk.fill()

    def fill_log(self) -> None:
        """Fill the disk, and write WAL until the server crashes for lack of space."""
        self.fill_disk()
        if self._disks:
            with suppress(psycopg.Error), psycopg.connect(self.primary.dsn, autocommit=True) as conn:
                while True:
                    conn.execute(LOG_A_MEGABYTE)

    def free_disk(self) -> None:
        """Free the disk. A server that could not write WAL has crashed or is recovering: call `bring_up()`."""
        for disk in self._disks:
            disk.free()

    @property
    def _is_followed(self) -> bool:
        """Whether the standby, if there is one, is intact and runs."""
        return self.standby is None or (self._is_attached and self.standby.running)

    def _down_and_up(self, how: Outage) -> float:
        began = time.monotonic()
        self.take_down(how)
        self.bring_up()
        return time.monotonic() - began

    def _repair(self, *, is_late: bool) -> bool:
        """Make one repair attempt, and return whether everything was intact before it.

        Unless `is_late`, a commit that does not return is assumed to wait for a standby that is reconnecting.
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
