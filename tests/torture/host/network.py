"""A network of two, made by us and cut without a sound: a server here, its clients in a namespace of their own."""

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

# RFC 2544 sets these addresses aside for the testing of networks.
NET = "198.18"
NOBODY = "02:00:00:00:00:00"  # an address of no card: frames sent there are dropped by whoever gets them
HBA = """# Who may connect: anybody on this machine by the socket, and over the network its other end alone.
local all all trust
local replication all trust
host all all {peer}/32 trust
"""

Cut = Literal["both", "requests", "replies"]


class Network:
    """Two ends, a cable between them, and nobody else: `server_address` here, and `peer_address` in the namespace.

    `prefix` goes before a command that is to run at the other end, and `settings` are a server's that listens at this
    one, and to nobody but the peer. `cut()` lets what is sent vanish: the sender hears nothing of it, no reset, no
    "unreachable", as with a cable that is pulled far away; each end's table of neighbours then tells it to send to a
    card that does not exist. Only root can have one: `why_not()` says so. It is gone with `close()`, and whoever still
    runs in it is left without a network; when this process is killed, the next one that makes a Network takes it away
    once nobody runs in it any more.

        with Network() as network:
            subprocess.Popen([*network.prefix, "pgflow", "worker", …])
            network.cut()
    """

    def __init__(self) -> None:
        if reason := Network.why_not():
            raise PgflowError(f"no network can be made: {reason}")
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
        """Return why no network can be made here; None when it can."""
        return _obstacle() or _refusal()

    @property
    def prefix(self) -> list[str]:
        """What to put before a command, so that it runs at the other end, in the same process."""
        return [find("ip") or "ip", "netns", "exec", self.name]

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a server that listens at this end. Its port is its own choice."""
        return {"listen_addresses": self.server_address, "hba_file": str(self._slot.folder / "hba")}

    def cut(self, what: Cut = "both") -> None:
        """Let what is sent from now on vanish: all of it, or only the clients' requests, or only the server's replies.

        Takes the place of an earlier cut. What is sent anew after `heal()` arrives, as TCP does with all that was lost.
        """
        self._send(requests=what == "replies", replies=what == "requests")

    def heal(self) -> None:
        """Let everything arrive. Does nothing when it does."""
        self._send(requests=True, replies=True)

    def close(self) -> None:
        """Take it away."""
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
        """Say where each end sends to. The entries are permanent: nobody asks for them, or learns better."""
        there = self._address if requests else NOBODY
        here = self._peer_hardware if replies else NOBODY
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
    """Take away a slot's network; False when somebody runs in it."""
    name = _namespace(number)
    if _exists(name) and run("ip", "netns", "pids", name).strip():
        return False
    _remove(number)
    return True


def _remove(number: int) -> None:
    name, card = _namespace(number), _cards(number)[0]
    if Path("/sys/class/net", card).exists():  # both ends of the cable go; a namespace may outlive its name
        run("ip", "link", "delete", card)
    if _exists(name):
        run("ip", "netns", "delete", name)


def _exists(namespace: str) -> bool:
    return Path("/run/netns", namespace).exists()


def _obstacle() -> str | None:
    if sys.platform != "linux":
        return "network namespaces are a thing of Linux"
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    return None if find("ip") else "there is no program ip (Debian, Ubuntu: iproute2)"


@cache
def _refusal() -> str | None:
    """Return what the kernel has against it, by trying."""
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
