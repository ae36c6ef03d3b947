"""Steps that fork: the child has connections of its own, and never goes on as a second copy of its worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgflow import Pgflow, Workflow
from pgflow.database.connect import Connection
from pgflow.local import Local
from tests.worker.db_helpers import one, rows, until_all_ended
from tests.worker.forked import WORKFLOWS as FORKING
from tests.worker.forked import Async, ATransactional, Child, Lasting, Pooled, Sync, Task, Transactional
from tests.worker.processes import Process, Processes
from tests.worker.waiting import until

WORKFLOWS = FORKING
PATIENCE = 90.0
CODES = {"return": 0, "exit": 7, "os._exit": 7, "error": 1}
STEPS = (Sync, Async, Transactional, ATransactional)


@pytest.fixture
def worker(app: Pgflow, processes: Processes) -> Iterator[Process]:
    process = processes.start("--queue", "default=4", app="tests.worker.forked")
    yield process
    assert process.terminate() == 0, process.log
    assert "a turn failed" not in process.log
    assert "Exception ignored" not in process.log


def outputs(workflow: type[Workflow[Any]]) -> dict[str, Any]:
    """What the sole step of each instance returned, by business value."""
    values = [each.id.partition("::")[2] for each in workflow.list()]
    return {value: next(iter(workflow.get(value).steps.values())) for value in values}


@pytest.mark.parametrize("workflow", STEPS)
def test_a_child_of_a_step_calls_and_its_end_leaves_the_worker_alone(
    worker: Process, conn: Connection, workflow: type[Workflow[Any]]
) -> None:
    sessions = """select pid, backend_start from pg_stat_activity
        where application_name in ('pgflow:worker', 'pgflow:heart')"""
    before = set(rows(conn, sessions))
    workflow.start_many([(how, {"leave": how}) for how in CODES])
    ended = until_all_ended(conn, patience=PATIENCE)
    assert ended == {"completed": len(CODES) * 4}
    assert {value: output["code"] for value, output in outputs(workflow).items()} == CODES
    assert one(conn, "select count(*) from pgflow.instances where workflow = 'Child'") == 3 * len(CODES)
    assert before <= set(rows(conn, sessions))
    assert one(conn, "select count(*) from pgflow.workers") == 1
    assert {output["pid"] for output in outputs(Child).values()} == {worker.pid}


def test_a_child_that_exits_in_a_task_of_a_step_ends(worker: Process, conn: Connection) -> None:
    """The worker goes on after a SystemExit in such a task, but not in a child."""
    Task.start("exit", {"leave": "exit"})
    assert until_all_ended(conn, patience=PATIENCE) == {"completed": 1}
    assert outputs(Task) == {"exit": {"code": CODES["exit"]}}


def test_a_child_that_exits_in_a_task_of_a_step_of_a_local_ends() -> None:
    with Local(workflows=[Task]) as local:
        local.start(Task, "exit", {"leave": "exit"})
        local.drain(timeout=PATIENCE)
        assert outputs(Task) == {"exit": {"code": CODES["exit"]}}


def test_a_pool_of_forked_processes_in_a_step_calls_side_by_side(worker: Process, conn: Connection) -> None:
    Pooled.start("pool", {})
    assert until_all_ended(conn, patience=PATIENCE) == {"completed": 1 + 4 * 3}
    assert outputs(Pooled) == {"pool": {"is_other": True}}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the process for heartbeats needs /proc")
def test_a_worker_ends_while_a_child_of_one_of_its_steps_lives_on(
    app: Pgflow, processes: Processes, conn: Connection, tmp_path: Path
) -> None:
    """The child has a copy of the pipe whose end the heartbeat process waits for."""
    process = processes.start(app="tests.worker.forked")
    app.start(Lasting, "child", {"pid": str(tmp_path / "pid")})
    until((tmp_path / "pid").exists, "the child", patience=PATIENCE)
    child = int((tmp_path / "pid").read_text())
    try:
        until_all_ended(conn, patience=PATIENCE)
        assert process.terminate() == 0, process.log
        os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("workflow", [Sync, Async])
def test_a_child_of_a_step_of_a_local_ends_and_the_local_goes_on(workflow: type[Workflow[Any]]) -> None:
    with Local(workflows=[workflow, Child]) as local:
        local.start_many(workflow, [(how, {"leave": how}) for how in CODES])
        local.drain(timeout=PATIENCE)
        # The calls of the child are refused, because a Local runs in one process only.
        assert {value: output["code"] for value, output in outputs(workflow).items()} == dict.fromkeys(CODES, 1)
        assert local.list(Child) == []
