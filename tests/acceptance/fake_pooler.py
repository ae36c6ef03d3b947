"""Stands between a client and PostgreSQL as a pooler does: other process ids, notifications to whoever spoke last."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["REFUSAL", "run_fake_pooler"]

REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


@contextmanager
def run_fake_pooler(path: str, *, delivers: bool = False, takes_options: bool = True) -> Iterator[int]:
    """Give the port of a proxy to the server's Unix socket at `path`."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_serve, args=(door, path, delivers, takes_options), daemon=True).start()
        try:
            yield door.getsockname()[1]
        finally:
            door.shutdown(socket.SHUT_RDWR)


def _serve(door: socket.socket, path: str, delivers: bool, takes_options: bool) -> None:
    spoke: list[socket.socket] = []
    with suppress(OSError):
        while True:
            client, _ = door.accept()
            arguments = (client, path, delivers, takes_options, spoke)
            threading.Thread(target=_connect, args=arguments, daemon=True).start()


def _connect(client: socket.socket, path: str, delivers: bool, takes_options: bool, spoke: list[socket.socket]) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        startup = client.recv(65_536)
        if b"\0options\0" in startup and not takes_options:
            client.sendall(b"E" + (len(REFUSAL) + 4).to_bytes(4) + REFUSAL)
            return
        server.connect(path)
        server.sendall(startup)
        threading.Thread(target=_pass_on, args=(client, server, spoke), daemon=True).start()
        answers = server.makefile("rb")
        while head := answers.read(5):
            body = answers.read(int.from_bytes(head[1:]) - 4)
            if head[:1] == b"K":  # the process id, and the key to cancel with: a pooler has its own
                body = bytes(4) + body[4:]
            if head[:1] != b"A" or delivers or spoke[-1] is client:
                client.sendall(head + body)


def _pass_on(client: socket.socket, server: socket.socket, spoke: list[socket.socket]) -> None:
    with suppress(OSError):
        while asked := client.recv(65_536):
            spoke.append(client)
            server.sendall(asked)
        server.shutdown(socket.SHUT_RDWR)
