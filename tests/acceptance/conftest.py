"""Fixtures for tests of the command line: deployments with and without a worker."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests.acceptance.command import PROGRAM, environment
from tests.acceptance.deployment import APP, ORDER, TIMEOUT, Deployment
from tests.conftest import Server

numbers = count(1)


@pytest.fixture(scope="module")
def live(
    server: Server, migrated_database: Callable[[Server], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment with a running worker process."""
    deployment = Deployment.create(server, migrated_database)
    path = tmp_path_factory.mktemp("worker") / "log"
    with path.open("wb") as log:
        worker = subprocess.Popen(
            [*PROGRAM, "worker", "--app", APP, "--poll", "0.1"],
            env=environment(PGFLOW_DSN=deployment.dsn),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            for attempt in Retrying(stop=stop_after_delay(TIMEOUT), wait=wait_fixed(0.05), reraise=True):
                with attempt:
                    assert worker.poll() is None, path.read_text()
                    assert deployment.count("workers") == 1
            yield deployment
        finally:
            exit_code = stop(worker)
    assert exit_code == 0, path.read_text()


@pytest.fixture(scope="module")
def idle(server: Server, migrated_database: Callable[[Server], str]) -> Deployment:
    """A deployment that knows the workflows of the shop, without a worker."""
    deployment = Deployment.create(server, migrated_database)
    deployment.ok("start", "OrderFlow", "first", "--input", ORDER, "--app", APP)
    return deployment


@pytest.fixture
def value() -> str:
    """A business value that no other test uses."""
    return f"v{next(numbers)}"


def stop(worker: subprocess.Popen[bytes]) -> int:
    """Stop a worker with SIGTERM and return its exit code; kill it if it does not stop."""
    worker.send_signal(signal.SIGTERM)
    try:
        return worker.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        raise
