"""Answer the probes of whoever looks after processes: is this worker alive, is it ready?

From a thread of its own, so that a step which keeps the event loop from running is told of, and not waited for.
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

__all__ = ["ADDRESS", "Address", "answering"]

log = Logger("pgflow.worker")

HERE = "127.0.0.1"

Check = Callable[[], str | None]


class Address(click.ParamType[tuple[str, int]]):
    """`PORT`, which listens on this machine only, or `HOST:PORT`."""

    name = "[host:]port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) < 65_536):
            self.fail(f"{value!r} is no address: it looks like 8080 or 0.0.0.0:8080", param, ctx)
        return host.strip("[]") or HERE, int(port)


ADDRESS = Address()


@contextmanager
def answering(address: tuple[str, int] | None, checks: Mapping[str, Check]) -> Iterator[None]:
    """Answer GET requests for as long as the block lasts; with no address, do nothing.

    `checks` says by path what is asked: each returns what is wrong, or None. Raises `click.ClickException` when nobody
    may listen there.

        with answering(("127.0.0.1", 8080), {"/livez": lambda: None}): …    # curl -f localhost:8080/livez
    """
    if address is None:
        yield
        return
    host, port = address
    try:
        server = Answerer((host, port), checks)
    except OSError as error:
        raise click.ClickException(f"nobody can listen on {host}:{port} here: {error.strerror or error}") from error
    log.info("health: http://%s:%d%s", host, server.server_port, ", ".join(sorted(checks)))
    thread = threading.Thread(target=server.serve_forever, name="pgflow-health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answerer(ThreadingHTTPServer):
    """A server of few words."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], checks: Mapping[str, Check]) -> None:
        self.checks = checks
        super().__init__(address, Answer)


class Answer(BaseHTTPRequestHandler):
    """200 and "ok", or 503 and what is wrong."""

    server: Answerer
    timeout = 5.0

    def do_GET(self) -> None:
        """Answer a probe."""
        check = self.server.checks.get(self.path)
        if check is None:
            self._say(HTTPStatus.NOT_FOUND, "ask for " + " or ".join(sorted(self.server.checks)))
            return
        wrong = check()
        self._say(HTTPStatus.OK if wrong is None else HTTPStatus.SERVICE_UNAVAILABLE, wrong or "ok")

    def _say(self, status: HTTPStatus, words: str) -> None:
        body = (words + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
        """Say nothing: probes come every few seconds."""
