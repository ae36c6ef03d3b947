"""Order of claims: priority, then age; a paused queue is not claimed from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from tests.store.driver import Driver
from tests.worker.conftest import Work
from tests.worker.db_helpers import rows, steps, until_all_ended, until_status
from tests.worker.gated_steps import Gate, Trio
from tests.worker.waiting import PATIENCE, until


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    Gate.close()
    yield
    Gate.go.set()


WORKFLOWS = (Trio,)


@pytest.mark.parametrize(("priority", "kept"), [(-5, False), (0, True), (5, True)])
def test_a_token_stays_with_its_worker_unless_something_more_urgent_waits(
    app: Pgflow, conn: Connection, priority: int, kept: bool
) -> None:
    driver = Driver(conn, WORKFLOWS)
    Trio.start("v0")
    assert driver.claim(1) == 1
    Trio.start("other", priority=priority)
    driver.run_steps()
    driver.settle()
    moved = rows(conn, "select state, worker is not null from pgflow.jobs where step = 'second'")
    assert moved == [("running", True) if kept else ("ready", False)]
    driver.claim(1)
    urgent_first = ["other.first"] if not kept else ["v0.second"]
    driver.run_steps()
    assert Gate.calls[1:2] == urgent_first


def test_a_more_urgent_instance_is_not_overtaken_by_those_under_way(app: Pgflow, conn: Connection, work: Work) -> None:
    work({"default": 1})
    Trio.start("v0", {"gate": True})
    assert Gate.begun.wait(PATIENCE)
    Trio.start_many([(f"v{number}", {}) for number in range(1, 6)])
    Trio.start("urgent", {}, priority=-5)
    Gate.go.set()
    assert until_all_ended(conn) == {"completed": 7}
    assert Gate.calls[:2] == ["v0.first", "urgent.first"]
    urgent = [place for place, call in enumerate(Gate.calls) if call.startswith("urgent.")]
    assert urgent[-1] <= 12, Gate.calls  # while its result is settled, other steps may run


def test_those_of_one_priority_go_first_in_first_out(app: Pgflow, conn: Connection, work: Work) -> None:
    Trio.start_many([(f"v{number}", {}) for number in range(10)])
    work({"default": 1})
    assert until_all_ended(conn) == {"completed": 10}
    firsts = [call for call in Gate.calls if call.endswith(".first")]
    assert firsts == [f"v{number}.first" for number in range(10)]


def test_a_paused_queue_stops_also_those_under_way_and_goes_on_when_it_is_released(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Trio.start("v", {"gate": True})
    assert Gate.begun.wait(PATIENCE)
    conn.execute("insert into pgflow.queues (name, paused_at) values ('default', pgflow.now())")
    Gate.go.set()
    until(lambda: steps(Trio.get("v")) == ["first"], "the first step's end")
    until(lambda: rows(conn, "select step, state from pgflow.jobs") == [("second", "ready")], "the halt")
    conn.execute("update pgflow.queues set paused_at = null")
    assert until_status(Trio, "v").status == "completed"
