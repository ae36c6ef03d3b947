"""Forked children: each process has its own connections, and what a child does leaves its parent's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from tests.worker.db_helpers import rows
from tests.worker.forking import CHILDREN, MANY, Single
from tests.worker.processes import CHECKOUT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

WORKFLOWS = (Single,)
EXITS = (
    "os._exit",
    "sys.exit",
    "sys.exit after a call",
    "app.close",
    "app.aclose",
    "garbage",
    "an inherited connection",
)


@pytest.fixture(autouse=True)
def _registered(app: Pgflow) -> None:
    """The programs work on this module's database."""


def program(name: str, dsn: str, *args: str) -> Any:
    """Run a program of forking.py and return what it found."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.worker.forking", name, dsn, *args]
    done = subprocess.run(command, capture_output=True, check=False, cwd=CHECKOUT, text=True, timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["found"]


def results(reports: list[Any]) -> list[Any]:
    """What children found; each must have ended by itself, without an error."""
    assert [(each.get("error"), each["code"]) for each in reports] == [(None, 0)] * len(reports)
    return [each["result"] for each in reports]


def assert_each_is_stored_once(conn: Connection, *runs: list[int]) -> None:
    """Each run that a process was given is stored, and no other: none is lost, doubled or mixed up."""
    told = [run for each in runs for run in each]
    assert Counter(told) == Counter(row[0] for row in rows(conn, "select run from pgflow.instances"))


def test_children_and_their_parent_start_at_the_same_time_and_each_gets_its_own_answers(
    dsn: str, conn: Connection
) -> None:
    found = program("children", dsn)
    assert_each_is_stored_once(conn, found["mine"], *results(found["children"]))
    assert found["same_session"]
    assert found["all"] == (CHILDREN + 1) * MANY


@pytest.mark.parametrize("how", EXITS)
def test_the_parents_sessions_survive_a_childs_end(dsn: str, conn: Connection, how: str) -> None:
    found = program("exits", dsn, how)
    (result,) = results([found["child"]])
    assert found["same_session"]
    assert found["kept"]
    if how == "an inherited connection":
        assert result == "refused"
    assert_each_is_stored_once(conn, found["mine"], result if how == "sys.exit after a call" else [])


def test_locks_that_other_threads_held_do_not_stop_a_child(dsn: str, conn: Connection) -> None:
    found = program("busy", dsn)
    assert_each_is_stored_once(conn, found["mine"], *results(found["children"]))


def test_a_child_of_a_parent_with_an_event_loop_runs_its_own(dsn: str, conn: Connection) -> None:
    assert_each_is_stored_once(conn, *results(program("aparent", dsn)["children"]))


def test_a_child_of_a_child_has_its_own_connections_too(dsn: str, conn: Connection) -> None:
    found = program("grandchildren", dsn)
    (outer,) = results([found["outer"]])
    assert_each_is_stored_once(conn, found["mine"], outer["mine"], *results([outer["inner"]]))


def test_a_multiprocessing_pool_of_forked_processes_calls_side_by_side(dsn: str, conn: Connection) -> None:
    found = program("pool", dsn)
    assert_each_is_stored_once(conn, found["runs"], found["mine"])
    assert found["same_session"]


def test_programs_that_are_started_rather_than_forked_change_nothing(dsn: str, conn: Connection) -> None:
    found = program("spawned", dsn)
    assert found["same_session"]
    assert_each_is_stored_once(conn, found["mine"])


@pytest.mark.skipif(sys.platform != "linux", reason="calls fork() of libc")
def test_a_fork_without_pythons_hooks_is_noticed_by_the_process_id(dsn: str, conn: Connection) -> None:
    found = program("without_hooks", dsn)
    (result,) = results([found["child"]])
    assert result["backend"] != found["backend"]
    assert found["same_session"]
    assert_each_is_stored_once(conn, found["mine"], result["runs"])


def test_a_local_in_a_child_refuses_at_once_and_the_parents_goes_on(dsn: str) -> None:
    found = program("local", dsn)
    for *refused, own in results(found["children"]):
        assert len(refused) == 8
        assert all(each.startswith(f"NotBound: this Local belongs to process {found['pid']}") for each in refused)
        assert own == "completed"
    assert found["status"] == "completed"


def test_a_child_cannot_stop_a_throwaway_server_of_its_parent(dsn: str) -> None:
    found = program("embedded", dsn)
    first, _ = results(found["children"])
    is_running, *refused, ran_own, left = first
    assert is_running
    assert len(refused) == 4
    assert all(f"belongs to process {found['pid']}" in each for each in refused)
    assert (ran_own, left) == (True, False)
    assert found["code"] == 3
    assert found["answer"] == 7
