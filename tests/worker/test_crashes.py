"""Poison jobs: a step that kills its worker is found and failed, and the steps that ran beside it complete."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import Pgflow, Workflow
from pgflow.database.connect import Connection
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, until_all_ended
from tests.worker.killing_flows import TASKS as TASKS
from tests.worker.killing_flows import WORKFLOWS as WORKFLOWS
from tests.worker.killing_flows import Innocent, Poison, PoisonAsync, Short, strike_alone
from tests.worker.processes import Process, Processes
from tests.worker.waiting import PATIENCE, until

INNOCENTS = 20
Kind = type[Workflow[Any]]


class Ward:
    """Keeps one worker running: whenever it dies, another one is started."""

    def __init__(self, conn: Connection, processes: Processes) -> None:
        self.dead: list[Process] = []
        self._conn = conn
        self._processes = processes
        self._living = self._start()

    def _start(self) -> Process:
        return self._processes.start("--lease", "1", "-q", "default=30", app="tests.worker.killing_flows", ready=False)

    def until_all_ended(self) -> Process:
        """Wait for the end of all instances and tasks; returns the worker that lives."""
        until(self._look, "the end of all jobs", patience=2 * PATIENCE)
        return self._living

    def _look(self) -> bool:
        if self._living.code is not None:
            self.dead.append(self._living)
            self._living = self._start()
        return not one(self._conn, "select count(*) from pgflow.jobs")


@pytest.mark.parametrize(("kind", "how"), [(Poison, "exit"), (PoisonAsync, "segfault"), (Poison, "memory")])
def test_a_step_that_kills_its_worker_fails_after_five_crashes_and_those_beside_it_complete_in_their_only_attempt(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path, kind: Kind, how: str
) -> None:
    log = str(tmp_path / "log")
    Innocent.start_many([(f"v{number}", {"log": log}) for number in range(INNOCENTS)])
    kind.start("v", {"how": how, "log": log})
    ward = Ward(conn, processes)
    living = ward.until_all_ended()

    failed = kind.get("v")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["reason"] == "the worker was lost while the step ran, 5 times"
    assert (failed.error["type"], failed.error["attempt"]) == ("WorkerLost", 1)
    assert [each["crashes"] for each in failed.error["attempts"]] == [1, 2, 3, 4, 5]
    assert len(ward.dead) == 5
    assert living.code is None
    assert rows(conn, "select status, count(*) from pgflow.instances where workflow = 'Innocent' group by 1") == [
        ("completed", INNOCENTS)
    ]
    assert rows(conn, "select attempt, count(*) from pgflow.step_results group by 1") == [(1, 2 * INNOCENTS)]
    runs = Counter(Path(log).read_text().splitlines())
    pids = [process.pid for process in ward.dead]
    assert [runs[f"poison::v 1 {pid}"] for pid in pids] == [1] * 5
    first = [line for line in runs if line.endswith(f" {pids[0]}")]
    assert len(first) == INNOCENTS + 1, "they were beside it"
    assert leftovers(conn) == {}


def test_several_of_them_cost_five_crashes_each_at_most_have_one_hook_each_and_no_other_step_fails(
    app: Pgflow, conn: Connection, processes: Processes, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    Poison.start("v", {"how": "exit", "log": log})
    strike_alone.enqueue("memory")
    Innocent.start_many([(f"v{number}", {"log": log}) for number in range(5)])
    ward = Ward(conn, processes)
    ward.until_all_ended()
    ended = rows(conn, "select workflow, status, count(*) from pgflow.instances group by 1, 2 order by 1")
    assert ended == [("Innocent", "completed", 5), ("Poison", "failed", 1)]
    assert rows(conn, "select error ->> 'type' from pgflow.task_results where status = 'failed'") == [("WorkerLost",)]
    hooks = "select args #>> '{end,kind}', status from pgflow.task_results where task = 'mourn' order by 1"
    assert rows(conn, hooks) == [("task", "completed"), ("workflow", "completed")]
    assert 5 <= len(ward.dead) <= 10
    assert leftovers(conn) == {}


def test_a_quarantined_job_that_has_run_alone_is_followed_by_the_next_at_once(
    app: Pgflow, conn: Connection, work: Work, tmp_path: Path
) -> None:
    log = str(tmp_path / "log")
    Short.start_many([(f"v{number}", {"log": log}) for number in range(6)])
    conn.execute("update pgflow.jobs set crashes = 2 where id % 2 = 0")
    inside = work({"default": 10}, poll=timedelta(minutes=10))
    assert until_all_ended(conn) == {"completed": 6}
    until(lambda: inside.worker.stats.steps == 6, "the last answer")


def test_a_worker_without_capacity_rests(app: Pgflow, conn: Connection, work: Work, tmp_path: Path) -> None:
    Short.start_many([(f"v{number}", {"log": str(tmp_path / "log")}) for number in range(2)])
    conn.execute("update pgflow.jobs set crashes = 2")
    inside = work({"default": 1}, poll=timedelta(seconds=0.01))
    turns = Counter[str]()
    turn = inside.worker._claimer.turn

    async def counted() -> None:
        turns["taken"] += 1
        await turn()

    inside.worker._claimer.turn = counted  # type: ignore[method-assign]
    assert until_all_ended(conn) == {"completed": 2}
    assert turns["taken"] < 300, "each quarantined job runs for 0.3 s"
