"""A worker's answers to the probes of a process manager."""

from __future__ import annotations

import re
import signal
import socket
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgflow import Pgflow
from pgflow.cli import cli
from pgflow.database.connect import Connection, connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.worker import supervisor
from tests.worker.flows import WORKFLOWS, Held
from tests.worker.processes import Process, Processes
from tests.worker.waiting import until


class Probe:
    """Asks a worker process that was started with --health 0."""

    def __init__(self, process: Process) -> None:
        (self._port,) = until(lambda: re.findall(r"health: http://127\.0\.0\.1:(\d+)/livez, /readyz", process.log))

    def __call__(self, path: str) -> tuple[int, str]:
        with closing(HTTPConnection("127.0.0.1", int(self._port), timeout=10)) as conn:
            conn.request("GET", path)
            answer = conn.getresponse()
            return answer.status, answer.read().decode().strip()


def test_a_worker_that_works_is_alive_and_ready_and_one_that_stops_is_not_ready(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path
) -> None:
    process = processes.start("--health", "0")
    ask = Probe(process)
    until(lambda: ask("/readyz") == (200, "ok"))
    assert ask("/livez") == (200, "ok")
    assert ask("/") == (404, "not found, try /livez or /readyz")

    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists)
    process.send(signal.SIGTERM)
    assert until(lambda: ask("/readyz")[0] == 503)
    assert ask("/readyz") == (503, "it is stopping")
    assert ask("/livez") == (200, "ok")
    hold.unlink()
    assert process.wait() == 0


def test_a_worker_whose_database_is_away_is_alive_and_not_ready(tmp_path: Path) -> None:
    with ExitStack() as ends:
        with EmbeddedPostgres(durable=False) as server:
            Pgflow(server.dsn).migrate()
            with connect(server.dsn, "test") as conn:
                process = Processes(server.dsn, tmp_path, conn).start("--health", "127.0.0.1:0", "--lease", "60")
                ends.callback(process.kill)
                ask = Probe(process)
                until(lambda: ask("/readyz") == (200, "ok"))
        until(lambda: ask("/readyz") == (503, "the database does not answer"))
        assert ask("/livez") == (200, "ok")


def test_a_stalled_loop_is_not_alive(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Pgflow(dsn, workflows=WORKFLOWS).worker({"default": 1})
    assert worker.liveness_error() is None
    assert worker.readiness_error() == "it is starting"
    monkeypatch.setattr(supervisor, "LOOP_STALL_TIMEOUT", -1.0)
    assert "has stalled" in (worker.liveness_error() or "")


@pytest.mark.parametrize("address", ["here", "1.2.3.4:", "65536", "-1", ":x"])
def test_an_invalid_address_is_refused(address: str) -> None:
    done = CliRunner().invoke(cli, ["worker", f"--health={address}", "--app", "tests.worker.flows"])
    assert done.exit_code == 2
    assert "use PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080" in done.output


def test_an_address_in_use_is_refused(app: Pgflow, processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = processes.start("--health", str(taken.getsockname()[1]), ready=False)
        assert process.wait() == 1
    assert "cannot listen on 127.0.0.1:" in process.log
