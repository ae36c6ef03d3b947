"""A network is cut without a sound, both sides notice it in time, and nothing is left of the network."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgflow.database.settings import CLIENT, SETTINGS
from tests.torture.host import network as module
from tests.torture.host.cluster import Cluster
from tests.torture.host.network import Cut, Network
from tests.torture.host.programs import find, run
from tests.torture.selftest.unsupported import is_unsupported
from tests.torture.selftest.writer import QUICK
from tests.worker.waiting import PATIENCE, until

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[3]
PEER = (sys.executable, "-m", "tests.torture.selftest.network_client")
# Our settings, scaled down: a cut is detected within 3 or 2 seconds instead of 25 or 20.
SHORT_TIMEOUTS = {
    "keepalives_idle": "1",
    "keepalives_interval": "1",
    "keepalives_count": "2",
    "tcp_user_timeout": "2000",
    "connect_timeout": "2",
    "options": "-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2 "
    "-c tcp_user_timeout=2000 -c client_connection_check_interval=500 "
    "-c idle_in_transaction_session_timeout=0 -c statement_timeout=0",
}
DETECTED_SECONDS = 25.0
# Sends its input, and prints what arrives.
SPEAKER = """
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
line.settimeout(None)
def receive():
    while word := line.recv(100):
        os.write(1, word)
threading.Thread(target=receive, daemon=True).start()
while word := os.read(0, 100):
    line.sendall(word)
"""
# Creates a network, prints its name, and waits to be killed.
MAKER = """
from tests.torture.host.network import Network
network = Network()
print(network.name, flush=True)
input()
"""


class Line:
    """A TCP connection from the other end to this one."""

    def __init__(self, network: Network) -> None:
        with socket.create_server((network.server_address, 0)) as door:
            self._far = subprocess.Popen(
                [*network.prefix, sys.executable, "-c", SPEAKER, *map(str, door.getsockname())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._near, _ = door.accept()

    def request(self, word: bytes) -> None:
        """Send a word from the other end."""
        assert self._far.stdin is not None
        os.write(self._far.stdin.fileno(), word)

    def reply(self, word: bytes) -> None:
        """Send a word from this end."""
        self._near.sendall(word)

    def requested(self, seconds: float) -> bytes:
        """Return what arrives here, nothing when it does not within so many seconds."""
        return self._near.recv(100) if select.select([self._near], [], [], seconds)[0] else b""

    def replied(self, seconds: float) -> bytes:
        """Return what arrives there."""
        assert self._far.stdout is not None
        number = self._far.stdout.fileno()
        return os.read(number, 100) if select.select([number], [], [], seconds)[0] else b""

    def end(self) -> None:
        """End it."""
        self._near.close()
        self._far.kill()
        self._far.communicate()


class Peer:
    """A client at the other end: `network_client.py`."""

    def __init__(self, network: Network, dsn: str) -> None:
        self._process = subprocess.Popen(
            [*network.prefix, *PEER, dsn],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.send("connect")
        assert self.receive() == "connected"

    def send(self, line: str) -> None:
        """Send it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def receive(self) -> str:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> None:
        """Send it a command, and wait until it starts it."""
        self.send(line)
        assert self.receive() == "started"

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def network() -> Iterator[Network | None]:
    """A network; None where none can be made."""
    if Network.why_not():
        yield None
    else:
        with Network() as network:
            yield network


@pytest.fixture(scope="module")
def cluster(network: Network | None) -> Iterator[Cluster]:
    """A server that listens on it."""
    with Cluster(settings=QUICK, network=network) as cluster:
        yield cluster


@pytest.fixture
def peer(network: Network | None, cluster: Cluster) -> Iterator[Peer | None]:
    """A client at the other end, connected."""
    if network is None:
        yield None
    else:
        peer = Peer(network, make_conninfo(cluster.peer_dsn, **SHORT_TIMEOUTS))
        try:
            yield peer
        finally:
            peer.end()
            network.heal()


def test_an_unsupported_network_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Network.why_not() == "only root can create a network namespace"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "find", lambda program: None)
    assert "the program ip is not installed" in str(Network.why_not())


@pytest.mark.parametrize("what", ["both", "requests", "replies"])
def test_packets_are_dropped_silently_while_it_is_cut_and_retransmitted_afterwards(
    network: Network | None, what: Cut
) -> None:
    if is_unsupported(Network.why_not()):
        return
    assert network is not None
    line = Line(network)
    try:
        line.request(b"one")
        line.reply(b"one")
        assert (line.requested(PATIENCE), line.replied(PATIENCE)) == (b"one", b"one")
        for _ in range(2):
            network.cut(what)
        # Neither end gets an error: it would end the program there, and be raised here.
        line.request(b"two")
        line.reply(b"two")
        assert line.requested(1) == (b"two" if what == "replies" else b"")
        assert line.replied(1) == (b"two" if what == "requests" else b"")
        for _ in range(2):
            network.heal()
        line.request(b" three")
        line.reply(b" three")
        until(lambda: line.requested(PATIENCE).endswith(b"three"), "the request")
        until(lambda: line.replied(PATIENCE).endswith(b"three"), "the reply")
    finally:
        line.end()
        network.heal()


def test_a_cut_takes_the_place_of_another(network: Network | None) -> None:
    if is_unsupported(Network.why_not()):
        return
    assert network is not None
    line = Line(network)
    try:
        network.cut("both")
        network.cut("requests")
        line.reply(b"one")
        assert line.replied(PATIENCE) == b"one"
    finally:
        line.end()
        network.heal()


@pytest.mark.parametrize("what", ["idle", "in flight", "sent later"])
def test_a_client_notices_a_cut(network: Network | None, cluster: Cluster, peer: Peer | None, what: str) -> None:
    if is_unsupported(Network.why_not()):
        return
    assert peer is not None
    assert network is not None
    if what != "sent later":
        peer.ask("listen" if what == "idle" else "run select pg_sleep(60)")
        until(lambda: _is_at(cluster, "idle" if what == "idle" else "active"), "the statement")
    network.cut()
    began = time.monotonic()
    if what == "sent later":
        peer.ask("run select 1")
    assert peer.receive().startswith("failed OperationalError")
    assert 1 < time.monotonic() - began < DETECTED_SECONDS


@pytest.mark.parametrize("statement", ["select 1", "select pg_sleep(60)"], ids=["idle", "in flight"])
def test_a_server_frees_what_a_client_has_locked_that_is_cut_off(
    network: Network | None, cluster: Cluster, peer: Peer | None, statement: str
) -> None:
    if is_unsupported(Network.why_not()):
        return
    assert peer is not None
    assert network is not None
    with psycopg.connect(cluster.dsn, autocommit=True) as conn:
        conn.execute("create table if not exists public.locked ()")
        peer.ask(f"run begin; lock table public.locked; {statement}")
        if statement == "select 1":
            assert peer.receive().startswith("done")
        until(lambda: not _is_free(conn), "the lock")
        network.cut()
        began = time.monotonic()
        until(lambda: _is_free(conn), "the lock's end")
    assert 1 < time.monotonic() - began < DETECTED_SECONDS


def _is_at(cluster: Cluster, state: str) -> bool:
    """Whether the peer's last statement, other than its preparation, is in this state."""
    query = "select count(*) from pg_stat_activity where query ~ '^(listen|select pg_sleep)' and state = %s"
    with psycopg.connect(cluster.admin_dsn) as conn:
        return conn.execute(query, [state]).fetchone() == (1,)


def _is_free(conn: psycopg.Connection[tuple[object, ...]]) -> bool:
    row = conn.execute("select count(*) from pg_locks where relation = 'public.locked'::regclass").fetchone()
    return row == (0,)


def test_our_own_settings_notice_a_cut_within_25_seconds() -> None:
    # The tests above use small values. The keepalive settings are seconds, the timeouts milliseconds.
    for settings, prefix in ((CLIENT, "keepalives"), (SETTINGS, "tcp_keepalives")):
        idle, interval, count = (int(settings[f"{prefix}_{name}"]) for name in ("idle", "interval", "count"))
        assert idle + interval * count <= 25
        assert int(settings["tcp_user_timeout"]) <= 25_000
    assert int(SETTINGS["client_connection_check_interval"]) <= 5_000


def test_a_new_connection_is_not_refused_while_it_is_cut_but_hangs(network: Network | None, cluster: Cluster) -> None:
    if is_unsupported(Network.why_not()):
        return
    assert network is not None
    network.cut()
    try:
        connecting = subprocess.run(
            [*network.prefix, *PEER, make_conninfo(cluster.peer_dsn, **SHORT_TIMEOUTS)],
            check=False,
            capture_output=True,
            cwd=CHECKOUT,
            input="connect\n",
            text=True,
        )
    finally:
        network.heal()
    assert "timeout expired" in connecting.stderr


def test_the_server_accepts_only_the_peer(network: Network | None, cluster: Cluster) -> None:
    if is_unsupported(Network.why_not()):
        return
    with pytest.raises(psycopg.OperationalError, match="entry for host"):
        psycopg.connect(cluster.peer_dsn)


def _processes_in(name: str) -> set[int]:
    return {int(pid) for pid in run("ip", "netns", "pids", name).split()}


def test_two_networks_do_not_get_in_each_others_way_and_nothing_is_left_of_them() -> None:
    if is_unsupported(Network.why_not()):
        return
    with Network() as one, Network() as other:
        names = {one.name, other.name}
        assert len({one.server_address, other.server_address, one.peer_address, other.peer_address}) == 4
        for each in (one, other):
            subprocess.run([*each.prefix, "true"], check=True)
        lingering = subprocess.Popen([*other.prefix, "sleep", "60"])
    try:
        assert not names & set(os.listdir("/run/netns"))
        for name in names:
            assert not Path("/sys/class/net", name.replace("-", "")).exists()
    finally:
        lingering.kill()
        lingering.wait()


def test_the_network_of_a_killed_process_is_removed_by_the_next_one_once_it_is_unused() -> None:
    if is_unsupported(Network.why_not()):
        return
    maker = subprocess.Popen([sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with maker:
        assert maker.stdout is not None
        name = maker.stdout.readline().strip()
        with Network():
            assert Path("/run/netns", name).exists()
        lingering = subprocess.Popen([find("ip") or "ip", "netns", "exec", name, "sleep", "60"])
        until(lambda: lingering.pid in _processes_in(name), "a process that uses it")
        maker.kill()
    try:
        with Network():
            assert lingering.pid in _processes_in(name)
    finally:
        lingering.kill()
        lingering.wait()
    with Network() as network:
        assert name == network.name or not Path("/run/netns", name).exists()
