"""`pgflow worker --processes N`: workers under one parent, which restarts them, stops them and answers probes."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from tests.worker.cpu_flows import HangForGood, Order
from tests.worker.db_helpers import rows, until_all_ended, until_status
from tests.worker.flows import WORKFLOWS as FLOWS
from tests.worker.flows import Held, Line
from tests.worker.processes import Process, Processes
from tests.worker.test_container import start as start_under_init
from tests.worker.test_cpu import is_alive, pids, until_dead
from tests.worker.test_health import Probe
from tests.worker.waiting import PATIENCE, until

WORKFLOWS = (*FLOWS, HangForGood)


def registered(conn: Connection) -> set[int]:
    """Return the pids of the workers that have a lease."""
    return {pid for (pid,) in rows(conn, "select pid from pgflow.workers where lease_expires_at > pgflow.now()")}


@pytest.fixture
def children(conn: Connection) -> Iterator[set[int]]:
    """The pids of workers that a test has seen, which are killed in the end."""
    seen: set[int] = set()
    yield seen
    for pid in seen | registered(conn):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(
    processes: Processes, conn: Connection, children: set[int], count: int, *options: str, **more: Any
) -> Process:
    """Start some workers, and wait until all have registered."""
    process = processes.start("--processes", str(count), *options, ready=False, **more)
    until(lambda: len(registered(conn)) == count or process.code is not None, "the registration of the workers")
    assert process.code is None, process.log
    children |= registered(conn)
    return process


def test_several_workers_share_the_work_and_stop_together(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int]
) -> None:
    process = start(processes, conn, children, 3, "-q", "default=1")
    assert len(children) == 3
    assert process.pid not in children
    Line.start_many([(str(number), {}) for number in range(60)])
    assert until_all_ended(conn) == {"completed": 60}
    assert rows(conn, "select count(distinct worker) > 1 from pgflow.step_results") == [(True,)]
    assert process.terminate() == 0
    until_dead(*children)
    assert registered(conn) == set()
    assert {"[1]", "[2]", "[3]"} <= set(re.findall(r"INFO (\[\d\])", process.log))


def test_one_that_is_killed_is_restarted_and_the_others_go_on(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int]
) -> None:
    process = start(processes, conn, children, 2, "--health", "0")
    ask = Probe(process)
    until(lambda: ask("/readyz") == (200, "ok"), "the workers are ready")
    victim, *others = children
    os.kill(victim, signal.SIGKILL)
    until(
        lambda: re.search(r"process [12] ended with code 137; it is started again in 1 s", process.log), "its restart"
    )
    until(lambda: len(registered(conn) - {victim}) == 2, "the new worker")
    children |= registered(conn)
    assert set(others) < registered(conn)
    until(lambda: ask("/readyz") == (200, "ok"), "the workers are ready again")
    Line.start("v", {})
    assert until_status(Line, "v").status == "completed"
    assert process.terminate() == 0


def test_the_probes_name_the_process_that_is_not_ready(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(processes, conn, children, 2, "--health", "0")
    ask = Probe(process)
    until(lambda: ask("/readyz") == (200, "ok"), "the workers are ready")
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists, "the step")
    (holder,) = {pid for (pid,) in rows(conn, "select pid from pgflow.workers join pgflow.jobs on worker = workers.id")}
    os.kill(holder, signal.SIGTERM)  # it stops, and waits for its step
    reason = re.compile(rf"process \d \(pid {holder}\): it is stopping")
    until(lambda: reason.fullmatch(ask("/readyz")[1]), "the reason")
    assert ask("/livez") == (200, "ok")
    hold.unlink()
    until(lambda: len(registered(conn) - {holder}) == 2, "its successor")
    children |= registered(conn)
    assert process.terminate() == 0


def test_workers_stop_in_order_when_their_parent_is_killed(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(processes, conn, children, 2)
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists, "the step")
    process.kill()
    until(lambda: len(registered(conn)) == 1, "the end of the idle worker")
    hold.unlink()
    until_dead(*children)
    assert rows(conn, "select count(*) from pgflow.step_results where step = 'hold'") == [(1,)]
    assert registered(conn) == set()


def test_a_signal_to_the_whole_group_is_one_signal(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(processes, conn, children, 2)
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists, "the step")
    for pid in (*children, process.pid):  # as a terminal, and systemd, do it
        os.kill(pid, signal.SIGTERM)
    until(lambda: len(registered(conn)) == 1, "the end of the idle worker")
    hold.unlink()
    assert process.wait() == 0
    assert rows(conn, "select count(*) from pgflow.step_results where step = 'hold'") == [(1,)]


def test_a_second_signal_stops_all_at_once(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(processes, conn, children, 2)
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists, "the step")
    process.send(signal.SIGTERM)
    until(lambda: "shutting down gracefully" in process.log, "the first signal")
    process.send(signal.SIGTERM)
    assert process.wait() == 130
    until_dead(*children)
    (job,) = app.jobs(Held)
    assert job.state == "ready"


def test_a_step_left_behind_is_reported_by_the_exit_code(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(processes, conn, children, 2, "--shutdown-timeout", "0.3")
    hold, log = tmp_path / "hold", tmp_path / "log"
    hold.touch()
    Held.start("v", {"hold": str(hold), "log": str(log)})
    until(log.exists, "the step")
    assert process.terminate() == 75
    until_dead(*children)


def test_an_error_at_the_start_is_reported_once_and_ends_it(processes: Processes, dsn: str) -> None:
    process = processes.start("--processes", "3", app="tests.worker.nowhere", ready=False)
    assert process.wait() == 2
    assert process.log.count("no module named 'tests.worker.nowhere'") == 1


def test_they_drain_together_and_print_their_counters(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int]
) -> None:
    Line.start_many([(str(number), {}) for number in range(20)])
    process = processes.start("--processes", "2", "--drain", "--json", ready=False)
    assert process.wait() == 0
    counters = [json.loads(each) for each in re.findall(r"^\{.*?^\}", process.log, re.MULTILINE | re.DOTALL)]
    assert {each["process"] for each in counters} == {1, 2}
    assert sum(each["steps"] for each in counters) == 100


def test_processes_for_cpu_steps_end_with_the_parent_of_their_worker(
    app: Pgflow, conn: Connection, processes: Processes, children: set[int], tmp_path: Path
) -> None:
    process = start(
        processes, conn, children, 2, "--cpu-processes", "1", "--shutdown-timeout", "0.3", app="tests.worker.cpu_flows"
    )
    mark = tmp_path / "mark"
    mark.touch()
    app.start(HangForGood, "a", Order(rows=1, mark=str(mark)))
    until(lambda: pids(mark), "the step")
    process.kill()
    until_dead(*children, *pids(mark))


def test_workers_under_the_init_process_work_and_stop_in_order(app: Pgflow, dsn: str, conn: Connection) -> None:
    words = ["worker", "--app", "tests.worker.flows:app", "--processes", "2", "--dsn", dsn]
    with start_under_init("from pgflow.cli import main; main()", *words) as init:
        until(lambda: len(registered(conn)) == 2, "the registration of the workers")
        workers = registered(conn)
        Line.start("v", {})
        assert until_status(Line, "v").status == "completed"
        init.send_signal(signal.SIGTERM)
        assert init.wait(PATIENCE) == 0
    assert not any(map(is_alive, workers))
