"""The life of worker processes: how they end, how they die, and who does their work then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgflow import Instance, Pgflow, Workflow
from pgflow.database.connect import Connection
from tests.worker.db_helpers import (
    leftovers,
    one,
    rows,
    steps,
    until_all_ended,
    until_later,
    until_recorded,
    until_status,
)
from tests.worker.flows import WORKFLOWS as WORKFLOWS
from tests.worker.flows import Books, Clutched, Deadly, Held, HeldAsync, Hogged, Line, Paused
from tests.worker.processes import Process, Processes
from tests.worker.waiting import BUSY, until

LEASE = 2.0  # seconds, as in BRISK
Kind = type[Workflow[Any]]


class Errand:
    """An instance whose first step runs until it is let go, and a record of each run of a step."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kind = kind
        self._hold, self._log = folder / "hold", folder / "log"
        self._hold.touch()
        kind.start("v", {"hold": str(self._hold), "log": str(self._log)})

    @property
    def runs(self) -> list[tuple[str, int, int]]:
        """Step, attempt and process of each run."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(step, int(attempt), int(pid)) for step, attempt, pid in map(str.split, lines)]

    def until_runs(self, number: int = 1) -> None:
        """Wait until a step has begun so many times."""
        until(lambda: len(self.runs) >= number, f"run {number} of the step")

    def let_go(self) -> None:
        """Let the step end."""
        self._hold.unlink()

    def done(self) -> Instance:
        """Wait for the instance's end."""
        return until_status(self.kind, "v")


@pytest.fixture
def errand(app: Pgflow, conn: Connection, tmp_path: Path) -> Callable[[Kind], Errand]:
    """Start an errand of a kind."""
    conn.execute("create table if not exists ledger (value text, attempt integer)")
    conn.execute("delete from ledger")
    return lambda kind: Errand(tmp_path, kind)


def worker_of(conn: Connection, process: Process) -> int:
    """The newest id of a process."""
    return int(one(conn, "select max(id) from pgflow.workers where pid = %s", process.pid))


# -- ending


@pytest.mark.parametrize("kind", [Held, Hogged, Books])
def test_a_step_longer_than_the_lease_is_left_to_its_worker(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand], kind: Kind
) -> None:
    owner = processes.start()
    task = errand(kind)
    task.until_runs()
    processes.start()  # would be glad to rescue it
    until_later(conn, 2 * LEASE)
    assert one(conn, "select crashes from pgflow.jobs") == 0
    task.let_go()
    done = task.done()
    assert (done.status, done.history[0].attempt, done.history[0].worker) == ("completed", 1, worker_of(conn, owner))
    assert [run[:2] for run in task.runs] == [(done.history[0].step, 1), ("after", 1)]
    assert one(conn, "select count(*) from pgflow.workers") == 2


def test_sigterm_lets_a_step_longer_than_the_lease_end_normally(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    stopped = processes.start()
    task = errand(HeldAsync)
    task.until_runs()
    other = processes.start()
    stopped.send(signal.SIGTERM)
    until(lambda: "still run: 1" in stopped.log, "the drain")
    until_later(conn, 1.3 * LEASE)
    assert stopped.code is None
    task.let_go()
    assert stopped.wait() == 0, stopped.log
    done = task.done()
    assert (done.status, done.history[0].attempt, done.history[0].worker) == ("completed", 1, worker_of(conn, stopped))
    assert done.history[1].worker == worker_of(conn, other), "a worker that stops claims nothing"
    assert leftovers(conn) == {}


def test_a_worker_that_stops_leaves_what_it_holds_to_others_at_once(
    app: Pgflow, conn: Connection, processes: Processes
) -> None:
    stopped = processes.start("-q", "default=4")
    Line.start_many([(f"v{number}", {"seconds": 0.05}) for number in range(100)])
    until_recorded(conn, 20)
    assert stopped.terminate() == 0, stopped.log
    assert one(conn, "select count(*) from pgflow.jobs where state = 'running'") == 0
    assert one(conn, "select count(*) from pgflow.workers where lease_expires_at > now()") == 0
    processes.start("-q", "default=50")
    assert until_all_ended(conn) == {"completed": 100}
    assert rows(conn, "select max(attempt), count(*) from pgflow.step_results") == [(1, 500)]
    assert leftovers(conn) == {}


@pytest.mark.parametrize("kind", [Held, HeldAsync, Books])
def test_a_step_that_does_not_end_in_time_is_given_back_and_costs_no_attempt(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand], kind: Kind
) -> None:
    stopped = processes.start("--shutdown-timeout", "0.3", "--lease", "60")
    task = errand(kind)
    task.until_runs()
    assert stopped.terminate() == 75, stopped.log
    assert rows(conn, "select state, attempt, crashes, errors from pgflow.jobs") == [("ready", 0, 0, None)]
    processes.start()
    task.until_runs(2)
    task.let_go()
    done = task.done()
    assert (done.status, [entry.attempt for entry in done.history]) == ("completed", [1, 1])
    assert one(conn, "select count(*) from ledger") == (kind is Books)


@pytest.mark.parametrize("kind", [Held, HeldAsync, Hogged])
def test_a_second_signal_stops_at_once(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand], kind: Kind
) -> None:
    stopped = processes.start()
    task = errand(kind)
    task.until_runs()
    stopped.send(signal.SIGTERM)
    if kind is not Hogged:
        until(lambda: "still run: 1" in stopped.log, "the drain")
    stopped.send(signal.SIGINT)  # another one, lest the kernel take two pending ones for one
    assert stopped.wait() == 130  # although the step still runs
    processes.start()
    task.until_runs(2)
    task.let_go()
    assert task.done().status == "completed"


def test_an_idle_worker_ends_at_once(conn: Connection, processes: Processes) -> None:
    idle = processes.start("--poll", "3600", "--sweep", "3600")
    assert idle.terminate() == 0


def test_a_draining_worker_ends_by_itself_when_all_is_done(app: Pgflow, conn: Connection, processes: Processes) -> None:
    Line.start_many([(f"v{number}", {}) for number in range(50)])
    Paused.start("v", {})
    assert processes.start("--drain", ready=False).wait() == 0
    assert dict(rows(conn, "select status, count(*) from pgflow.instances group by status")) == {"completed": 51}


# -- dying


def test_a_dead_workers_step_runs_elsewhere_within_lease_and_sweep_and_poll(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    killed, other = processes.start(), processes.start()
    task = errand(Held)
    task.until_runs()
    first = next(process for process in (killed, other) if process.pid == task.runs[0][2])
    second = other if first is killed else killed
    first.kill()
    died = time.monotonic()
    task.until_runs(2)
    assert time.monotonic() - died < LEASE + 0.3 * 1.1 + 0.2 * 1.1 + BUSY
    task.let_go()
    done = task.done()
    assert (done.status, done.history[0].attempt) == ("completed", 1), "it was not the step's fault"
    assert [run[2] for run in task.runs] == [first.pid, second.pid, second.pid]
    (error,) = one(conn, "select errors from pgflow.step_results where step = 'hold'")
    assert (error["reason"], error["crashes"]) == ("the worker was lost while the step ran", 1)


def test_a_paused_worker_loses_its_step_and_goes_on_under_a_new_id(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    paused = processes.start()
    task = errand(Held)
    task.until_runs()
    old = worker_of(conn, paused)
    paused.send(signal.SIGSTOP)
    other = processes.start()
    task.until_runs(2)
    paused.send(signal.SIGCONT)
    until(lambda: worker_of(conn, paused) > old, "its new id")
    task.let_go()
    done = task.done()
    assert (done.status, done.history[0].attempt) == ("completed", 1)
    assert done.history[0].worker == worker_of(conn, other)
    assert len(rows(conn, "select step from pgflow.step_results")) == 2
    assert other.terminate() == 0
    Line.start("next", {})
    assert {entry.worker for entry in until_status(Line, "next").history} == {worker_of(conn, paused)}
    assert paused.terminate() == 0, paused.log


def test_a_paused_worker_alone_takes_its_step_up_again(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    paused = processes.start()
    task = errand(HeldAsync)
    task.until_runs()
    old = worker_of(conn, paused)
    paused.send(signal.SIGSTOP)
    until(
        lambda: not one(conn, "select count(*) from pgflow.workers where lease_expires_at > now()"), "the lease's end"
    )
    paused.send(signal.SIGCONT)
    task.until_runs(2)
    task.let_go()
    done = task.done()
    assert (done.status, done.history[0].attempt) == ("completed", 1)
    assert done.history[0].worker == worker_of(conn, paused) > old


def test_a_worker_stopped_before_the_commit_of_a_transactional_step_does_not_block_it(
    conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    stopped = processes.start(failpoints="transaction.settled=stop@1")
    task = errand(Books)
    task.until_runs()
    task.let_go()
    state = Path(f"/proc/{stopped.pid}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the worker to be stopped")
    other = processes.start()
    done = task.done()
    assert [entry.worker for entry in done.history] == [worker_of(conn, other)] * 2
    stopped.send(signal.SIGCONT)
    assert stopped.terminate() == 0, stopped.log
    assert one(conn, "select count(*) from ledger") == 1


def test_a_step_that_keeps_even_pythons_own_lock_is_not_taken_from_its_worker(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    clutching = processes.start()
    mine = worker_of(conn, clutching)
    Clutched.start("v", {"log": str(log), "seconds": 2.5 * LEASE})
    until(lambda: log.exists() and log.read_text(), "the step's begin")
    processes.start()
    done = until_status(Clutched, "v")
    assert [(done.history[0].step, done.history[0].attempt, done.history[0].worker)] == [("clutch", 1, mine)]
    assert log.read_text().split()[2::3][0] == str(clutching.pid)
    assert log.read_text().count("clutch") == 1
    assert worker_of(conn, clutching) == mine, "its lease went on"
    assert clutching.terminate() == 0, clutching.log


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL])
def test_a_worker_that_is_stopped_or_killed_while_it_does_that_loses_the_step_all_the_same(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path, end: signal.Signals
) -> None:
    log = tmp_path / "log"
    clutching = processes.start()
    Clutched.start("v", {"log": str(log), "seconds": 20 * LEASE})
    until(lambda: log.exists() and log.read_text(), "the step's begin")
    clutching.send(end)
    other = processes.start()
    done = until_status(Clutched, "v")
    assert {entry.worker for entry in done.history} == {worker_of(conn, other)}
    assert one(conn, "select count(*) from pgflow.step_results") == 2


def test_a_worker_whose_second_heart_is_killed_beats_on(
    app: Pgflow, conn: Connection, processes: Processes, errand: Callable[[Kind], Errand]
) -> None:
    process = processes.start()
    mine = worker_of(conn, process)
    (pulse,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(pulse), signal.SIGKILL)
    task = errand(Held)
    task.until_runs()
    until_later(conn, 2 * LEASE)
    task.let_go()
    assert task.done().history[0].worker == mine
    assert process.terminate() == 0, process.log


def test_a_step_that_kills_its_worker_each_time_fails_its_instance_in_the_end(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    Deadly.start("v", {"log": str(log)})
    Line.start("bystander", {}, delay=None)
    for _ in range(5):
        assert processes.start(ready=False).wait() == 1
    last = processes.start()
    failed = until_status(Deadly, "v")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"], failed.error["attempt"]) == ("crash", "WorkerLost", 1)
    assert len(log.read_text().splitlines()) == 5
    assert until_status(Line, "bystander").status == "completed"
    assert last.code is None
    assert leftovers(conn) == {}
    assert steps(failed) == []
