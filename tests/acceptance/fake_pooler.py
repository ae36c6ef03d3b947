"""A TCP proxy in front of PostgreSQL that behaves like a pooler: hides process ids and loses notifications."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["REFUSAL", "run_fake_pooler"]

REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


@contextmanager
def run_fake_pooler(path: str, *, delivers: bool = False, takes_options: bool = True) -> Iterator[int]:
    """Yield the port of a proxy to the server's Unix socket at `path`.

    It drops a notification unless its client was the last one to send something; with `delivers` it drops none. Without
    `takes_options` it refuses the startup parameter `options`, as PgBouncer does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, path, delivers, takes_options), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, path: str, delivers: bool, takes_options: bool) -> None:
    senders: list[socket.socket] = []
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each message takes 40 ms
            arguments = (client, path, delivers, takes_options, senders)
            threading.Thread(target=_connect, args=arguments, daemon=True).start()


def _connect(
    client: socket.socket, path: str, delivers: bool, takes_options: bool, senders: list[socket.socket]
) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        startup = client.recv(65_536)
        if b"\0options\0" in startup and not takes_options:
            client.sendall(b"E" + (len(REFUSAL) + 4).to_bytes(4) + REFUSAL)
            return
        server.connect(path)
        server.sendall(startup)
        threading.Thread(target=_forward, args=(client, server, senders), daemon=True).start()
        messages = server.makefile("rb")
        while head := messages.read(5):
            body = messages.read(int.from_bytes(head[1:]) - 4)
            if head[:1] == b"K":  # BackendKeyData: a pooler sends its own process id and cancel key
                body = bytes(4) + body[4:]
            if head[:1] != b"A" or delivers or senders[-1] is client:
                client.sendall(head + body)


def _forward(client: socket.socket, server: socket.socket, senders: list[socket.socket]) -> None:
    with suppress(OSError):
        while data := client.recv(65_536):
            senders.append(client)
            server.sendall(data)
        server.shutdown(socket.SHUT_RDWR)
