"""A worker process logs its failures, also where the application disables the loggers that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from tests.worker.db_helpers import until_status
from tests.worker.processes import Processes
from tests.worker.silenced_logging import WORKFLOWS as WORKFLOWS
from tests.worker.silenced_logging import Failing


@pytest.mark.parametrize("has_entry", [False, True])
def test_failures_are_logged_unless_an_entry_for_pgflow_disables_that(
    app: Pgflow, dsn: str, conn: Connection, tmp_path: Path, has_entry: bool
) -> None:
    processes = Processes(dsn, tmp_path, conn, more={"HUSHED": "entry" if has_entry else "root"})
    try:
        worker = processes.start(app="tests.worker.silenced_logging")
        for value in ("a", "b"):
            Failing.start(value, {})
            until_status(Failing, value, "failed")
        assert worker.terminate() == 0, worker.log
        told = [value for value in ("a", "b") if f"Failing failing::{value} failed at step fail: " in worker.log]
        assert told == ([] if has_entry else ["a", "b"])
        assert "worker 1 is ready" not in worker.log, "the level of the root decides"
    finally:
        processes.reap()
