"""What a worker does about a step that runs for too long, where a connection or a thread is held by it."""

from __future__ import annotations

from typing import Any

import pytest

from pgflow import Pgflow, Workflow
from pgflow.database.connect import Connection
from tests.worker import hanging_steps
from tests.worker.db_helpers import one, until_status
from tests.worker.hanging_steps import Booked, BookedAsync, Hung
from tests.worker.processes import Processes
from tests.worker.waiting import until

WORKFLOWS = hanging_steps.WORKFLOWS
HANGS = "select count(*) from pg_stat_activity where datname = current_database() and query like 'select pg_sleep%%'"


@pytest.fixture(autouse=True)
def ledger(app: Pgflow, conn: Connection) -> None:
    """A table that steps write to."""
    conn.execute("create table if not exists ledger (value text, attempt integer)")
    conn.execute("delete from ledger")


@pytest.mark.parametrize("workflow", [BookedAsync, Booked])
def test_what_an_attempt_has_written_that_took_too_long_is_rolled_back(
    conn: Connection, processes: Processes, workflow: type[Workflow[Any]]
) -> None:
    process = processes.start(app="tests.worker.hanging_steps")
    workflow.start("v", {})
    (entry,) = until_status(workflow, "v", "completed").history
    assert [error["type"] for error in entry.errors] == ["TimeoutError"]
    assert conn.execute("select attempt from ledger").fetchall() == [(2,)]
    until(lambda: one(conn, HANGS) == 0, "the end of what hangs")
    assert process.terminate() == 0


def test_a_worker_does_not_wait_for_ever_for_a_thread_that_it_has_given_up(processes: Processes) -> None:
    process = processes.start("--shutdown-timeout", "0.5", app="tests.worker.hanging_steps")
    Hung.start("v", {})
    until_status(Hung, "v", "completed")
    assert process.terminate() == 75
    assert "leaves steps behind that it gave up: 1" in process.log
