"""Serve HTTP health probes for a worker: liveness and readiness.

The server has a thread of its own, so that it answers, and reports the stall, while a step blocks the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click

from pgflow.logs import Logger

__all__ = ["ADDRESS", "Address", "serve_probes"]

log = Logger("pgflow.worker")

LOCALHOST = "127.0.0.1"

Check = Callable[[], str | None]


class Address(click.ParamType[tuple[str, int]]):
    """`PORT`, which listens on localhost only, or `HOST:PORT`."""

    name = "[host:]port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) < 65_536):
            self.fail(
                f"{value!r} is not a valid address: use PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080", param, ctx
            )
        return host.strip("[]") or LOCALHOST, int(port)


ADDRESS = Address()


@contextmanager
def serve_probes(address: tuple[str, int] | None, checks: Mapping[str, Check]) -> Iterator[None]:
    """Serve GET requests for the duration of the block; without an address, do nothing.

    `checks` maps a path to a function that returns the error to report, or None. Raises `click.ClickException` when the
    address cannot be listened on.

        with serve_probes(("127.0.0.1", 8080), {"/livez": lambda: None}): …    # curl -f localhost:8080/livez
    """
    if address is None:
        yield
        return
    host, port = address
    try:
        server = ProbeServer((host, port), checks)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    log.info("health: http://%s:%d%s", host, server.server_port, ", ".join(sorted(checks)))
    thread = threading.Thread(target=server.serve_forever, name="pgflow-health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ProbeServer(ThreadingHTTPServer):
    """An HTTP server that holds the checks for its handlers."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], checks: Mapping[str, Check]) -> None:
        self.checks = checks
        super().__init__(address, ProbeHandler)


class ProbeHandler(BaseHTTPRequestHandler):
    """Responds with 200 and "ok", or with 503 and the error."""

    server: ProbeServer
    timeout = 5.0

    def do_GET(self) -> None:
        """Respond to a probe."""
        check = self.server.checks.get(self.path)
        if check is None:
            self._respond(HTTPStatus.NOT_FOUND, "not found, try " + " or ".join(sorted(self.server.checks)))
            return
        error = check()
        self._respond(HTTPStatus.OK if error is None else HTTPStatus.SERVICE_UNAVAILABLE, error or "ok")

    def _respond(self, status: HTTPStatus, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
        """Log nothing: probes arrive every few seconds."""
