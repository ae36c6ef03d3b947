"""A private network that can be cut silently: a server at one end, its clients in a network namespace."""

import json
import os
import sys
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pgflow.errors import PgflowError
from tests.torture.host.programs import find, run
from tests.torture.host.slot import Slot

__all__ = ["Cut", "Network"]

# RFC 2544 reserves these addresses for network tests.
NET = "198.18"
NO_CARD = "02:00:00:00:00:00"  # no card has this address, so frames to it are dropped
HBA = """# Local users may connect through the socket, and over the network only the peer.
local all all trust
local replication all trust
host all all {peer}/32 trust
"""

Cut = Literal["both", "requests", "replies"]


class Network:
    """A virtual cable between `server_address` here and `peer_address` in a network namespace.

    A command prefixed with `prefix` runs at the peer's end. `settings` are for a server that listens at this end, for
    the peer only. `cut()` drops packets silently, like a cable that is pulled far away: the sender gets no reset and no
    "unreachable". It does so by pointing the neighbour table of each end to a card that does not exist. Only root can
    create one: see `why_not()`. `close()` removes it, and processes inside lose their network; after a kill of this
    process, the next one that creates a Network removes it once no process runs in it.

        with Network() as network:
            subprocess.Popen([*network.prefix, "pgflow", "worker", …])
            network.cut()
    """

    def __init__(self) -> None:
        if reason := Network.why_not():
            raise PgflowError(f"cannot create a network: {reason}")
        self._slot = Slot("network", _clear)
        number = self._slot.number
        self.name = _namespace(number)
        self.server_address, self.peer_address = f"{NET}.{number}.1", f"{NET}.{number}.2"
        self._card, self._peer_card = _cards(number)
        try:
            self._make()
        except BaseException:
            self._slot.release()
            raise

    @staticmethod
    def why_not() -> str | None:
        """Return why this machine cannot have one; None when it can."""
        return _obstacle() or _refusal()

    @property
    def prefix(self) -> list[str]:
        """The prefix of a command that runs at the peer's end, in the same process."""
        return [find("ip") or "ip", "netns", "exec", self.name]

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a server that listens at this end, on any port."""
        return {"listen_addresses": self.server_address, "hba_file": str(self._slot.folder / "hba")}

    def cut(self, what: Cut = "both") -> None:
        """Drop all packets from now on, or only the clients' requests, or only the server's replies.

        Replaces an earlier cut. After `heal()` TCP retransmits what was lost.
        """
        self._send(requests=what == "replies", replies=what == "requests")

    def heal(self) -> None:
        """Deliver all packets again."""
        self._send(requests=True, replies=True)

    def close(self) -> None:
        """Remove it."""
        _remove(self._slot.number)
        self._slot.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._card, "type", "veth", "peer", "name", self._peer_card, "netns", self.name)
        run("ip", "address", "add", f"{self.server_address}/30", "dev", self._card)
        run("ip", "-n", self.name, "address", "add", f"{self.peer_address}/30", "dev", self._peer_card)
        run("ip", "link", "set", self._card, "up")
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ip", "-n", self.name, "link", "set", self._peer_card, "up")
        self._address = _hardware(run("ip", "-json", "link", "show", self._card))
        self._peer_hardware = _hardware(run("ip", "-n", self.name, "-json", "link", "show", self._peer_card))
        self.heal()
        hba = self._slot.folder / "hba"
        hba.write_text(HBA.format(peer=self.peer_address))
        hba.chmod(0o644)

    def _send(self, *, requests: bool, replies: bool) -> None:
        """Set where each end sends to. The entries are permanent, so ARP does not correct them."""
        there = self._address if requests else NO_CARD
        here = self._peer_hardware if replies else NO_CARD
        entry = ["neighbour", "replace", self.server_address, "lladdr", there, "nud", "permanent"]
        run("ip", "-n", self.name, *entry, "dev", self._peer_card)
        entry = ["neighbour", "replace", self.peer_address, "lladdr", here, "nud", "permanent"]
        run("ip", *entry, "dev", self._card)


def _namespace(number: int) -> str:
    return f"pgflow-{number}"


def _cards(number: int) -> tuple[str, str]:
    return f"pgflow{number}", f"pgflow{number}peer"


def _hardware(described: str) -> str:
    return str(json.loads(described)[0]["address"])


def _clear(number: int, folder: Path) -> bool:
    """Remove a slot's network; False while a process runs in it."""
    name = _namespace(number)
    if _exists(name) and run("ip", "netns", "pids", name).strip():
        return False
    _remove(number)
    return True


def _remove(number: int) -> None:
    name, card = _namespace(number), _cards(number)[0]
    if Path("/sys/class/net", card).exists():  # removes both ends; a namespace may outlive its name
        run("ip", "link", "delete", card)
    if _exists(name):
        run("ip", "netns", "delete", name)


def _exists(namespace: str) -> bool:
    return Path("/run/netns", namespace).exists()


def _obstacle() -> str | None:
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "only root can create a network namespace"
    return None if find("ip") else "the program ip is not installed (Debian, Ubuntu: iproute2)"


@cache
def _refusal() -> str | None:
    """Return why the kernel refuses it, by trying."""
    slot = Slot("network", _clear)
    name, (card, peer) = _namespace(slot.number), _cards(slot.number)
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", card, "type", "veth", "peer", "name", peer, "netns", name)
    except PgflowError as error:
        return str(error)
    finally:
        slot.release()
    return None
