"""With an orchestration queue, a job is in the step's queue when the step runs, and in that queue otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from pgflow import Context, Done, Error, Ok, Pgflow, Retry, Step, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import job
from pgflow.store.notification import QueueReady
from tests.store import commands
from tests.store.driver import Driver

Input = dict[str, Any]
values = (f"v{number}" for number in count())


@step
def begin(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Side(Step):
    """One of two parallel steps, in a separate queue; fails as often as the input requests."""

    events = ("done",)
    queue = "slow"
    retry = Retry(max_attempts=3, base=timedelta(hours=1))

    def execute(self, ctx: Context[Input]) -> Ok | Error:
        if ctx.attempt <= ctx.initial.get("failures", 0):
            return Error("not yet", retry=ctx.initial.get("retry", True))
        return Ok("done")


left, right = Side().named("left"), Side().named("right")
answer = WaitForEvent("answered", timeout=timedelta(hours=1)).named("answer")


@step
def close(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Split(Workflow[Input], unique=Unique("split"), orchestration_queue="decisions"):
    """A fork, a join and a wait."""

    initial = begin
    transitions = {
        begin: {"done": [left, right]},
        left: {"done": answer},
        right: {"done": answer},
        answer: {"received": close, "timeout": Done},
        close: {"done": Done},
    }


class Timed(Workflow[Input], unique=Unique("timed"), orchestration_queue="decisions"):
    """A wait for time to pass."""

    initial = Wait(timedelta(hours=1)).named("pause")
    transitions = {initial: {"timeout": Done}}


class Plain(Workflow[Input], unique=Unique("plain")):
    """The same wait in a workflow without an orchestration queue."""

    initial = answer
    transitions = {answer: {"received": Done, "timeout": Done}}


WORKFLOWS = (Split, Timed, Plain)
EVERY = ("default", "slow", "decisions")


@pytest.fixture
def conn(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        app = Pgflow(migrated, workflows=WORKFLOWS)
        app.register()
        yield conn
        app.close()
        for table in ("instances", "step_results", "jobs", "signals", "workers"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand one line above


def tokens(conn: Connection) -> list[tuple[str, str, str, str]]:
    """Return step, kind, state and queue of each job."""
    return conn.execute("select step, kind, state, queue from pgflow.jobs order by id").fetchall()


def make_due(conn: Connection) -> None:
    conn.execute("update pgflow.jobs set run_at = now() where state in ('scheduled', 'parked')")
    run(conn, job.stage("pgflow"))


def move_on(driver: Driver, turns: int = 5) -> None:
    for _ in range(turns):
        driver.turn()


def to_the_answer(conn: Connection, value: str) -> Driver:
    Split.start(value, {})
    driver = Driver(conn, WORKFLOWS, queues=EVERY)
    move_on(driver)
    return driver


def test_steps_run_in_their_queue_and_a_wait_is_parked_in_the_orchestration_queue(conn: Connection) -> None:
    Split.start(next(values), {})
    assert tokens(conn) == [("begin", "execute", "ready", "default")]
    driver = Driver(conn, WORKFLOWS, queues=["default"])
    move_on(driver, 2)
    assert tokens(conn) == [("left", "execute", "ready", "slow"), ("right", "execute", "ready", "slow")]
    driver = Driver(conn, WORKFLOWS, queues=["slow"])
    move_on(driver, 2)
    assert tokens(conn) == [("answer", "execute", "ready", "default")]
    driver = Driver(conn, WORKFLOWS, queues=["default"])
    move_on(driver, 2)
    assert tokens(conn) == [("answer", "resume", "parked", "decisions")]


def test_a_signal_is_applied_in_the_orchestration_queue_and_the_next_step_runs_in_its_own(
    conn: Connection,
) -> None:
    value = next(values)
    to_the_answer(conn, value)
    assert Split.resume(value, "answered") == "delivered"
    assert tokens(conn) == [("answer", "resume", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=["default", "slow"]))
    assert tokens(conn) == [("answer", "resume", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=["decisions"]), 2)
    assert tokens(conn) == [("close", "execute", "ready", "default")]
    move_on(Driver(conn, WORKFLOWS, queues=EVERY))
    assert Split.get(value).status == "completed"


def test_a_timer_is_applied_in_the_orchestration_queue(conn: Connection) -> None:
    value = next(values)
    Timed.start(value, {})
    move_on(Driver(conn, WORKFLOWS, queues=["default"]), 2)
    assert tokens(conn) == [("pause", "resume", "parked", "decisions")]
    make_due(conn)
    assert tokens(conn) == [("pause", "resume", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=["decisions"]), 2)
    assert Timed.get(value).status == "completed"


def test_a_result_that_met_a_conflict_is_applied_in_the_orchestration_queue(conn: Connection) -> None:
    value = next(values)
    Split.start(value, {})
    move_on(Driver(conn, WORKFLOWS, queues=["default"]), 2)
    one, other = (Driver(conn, WORKFLOWS, queues=["slow"]) for _ in range(2))
    for driver in (one, other):
        driver.claim(1)
        driver.run_steps()
    one.settle()
    other.settle()  # with an outdated revision
    assert tokens(conn) == [("right", "advance", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=["default", "slow"]))
    assert [entry.step for entry in Split.get(value).history] == ["begin", "left", "right"]
    move_on(Driver(conn, WORKFLOWS, queues=["decisions"]), 2)
    assert tokens(conn) == [("answer", "execute", "ready", "default")]


def test_a_wait_that_met_a_signal_while_parking_is_decided_again_in_the_orchestration_queue(
    conn: Connection,
) -> None:
    value = next(values)
    Split.start(value, {})
    driver = Driver(conn, WORKFLOWS, queues=EVERY)
    while tokens(conn) != [("answer", "execute", "running", "default")]:
        driver.turn()
    assert Split.resume(value, "answered") == "kept"
    driver.settle()
    assert tokens(conn) == [("answer", "advance", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=EVERY))
    assert Split.get(value).status == "completed"


@pytest.mark.parametrize(("free", "state"), [(0, "ready"), (1, "running")])
def test_a_job_moved_to_another_queue_stays_with_its_worker_only_if_a_slot_is_free(
    conn: Connection, free: int, state: str
) -> None:
    value = next(values)
    driver = to_the_answer(conn, value)
    Split.resume(value, "answered")
    driver.claim()
    driver.buffers["default"].concurrency = free
    driver.run_steps()
    driver.settle()
    assert tokens(conn) == [("close", "execute", state, "default")]


def test_a_retry_waits_and_runs_in_the_queue_of_the_step(conn: Connection) -> None:
    Split.start(next(values), {"failures": 1})
    driver = Driver(conn, WORKFLOWS, queues=EVERY)
    move_on(driver)
    assert tokens(conn) == [("left", "execute", "scheduled", "slow"), ("right", "execute", "scheduled", "slow")]
    make_due(conn)
    assert {token[2:] for token in tokens(conn)} == {("ready", "slow")}


def test_a_retried_instance_continues_in_the_orchestration_queue(conn: Connection) -> None:
    value = next(values)
    Split.start(value, {"failures": 1, "retry": False})
    move_on(Driver(conn, WORKFLOWS, queues=EVERY))
    assert Split.get(value).status == "failed"
    Split.retry(value)
    assert tokens(conn) == [("", "advance", "ready", "decisions")]
    move_on(Driver(conn, WORKFLOWS, queues=["decisions"]), 2)
    assert tokens(conn) == [("left", "execute", "ready", "slow"), ("right", "execute", "ready", "slow")]


def test_a_poison_job_fails_its_instance_in_the_orchestration_queue(conn: Connection) -> None:
    value = next(values)
    Split.start(value, {})
    move_on(Driver(conn, WORKFLOWS, queues=["default"]), 2)
    lost = Driver(conn, WORKFLOWS, queues=["slow"])
    conn.execute("update pgflow.jobs set crashes = 4 where step = 'left'")
    conn.execute("update pgflow.jobs set state = 'scheduled' where step = 'right'")
    lost.claim()
    conn.execute("update pgflow.workers set lease_expires_at = now() - interval '1 second'")
    assert run(conn, job.rescue("pgflow")).queues == ["decisions"]
    assert tokens(conn) == [("left", "advance", "ready", "decisions"), ("right", "execute", "scheduled", "slow")]
    move_on(Driver(conn, WORKFLOWS, queues=["decisions"]), 2)
    assert Split.get(value).status == "failed"


def test_a_job_parked_before_there_was_such_a_queue_continues_in_its_own(conn: Connection) -> None:
    value = next(values)
    to_the_answer(conn, value)
    conn.execute("update pgflow.jobs set queue = 'default'")
    Split.resume(value, "answered")
    move_on(Driver(conn, WORKFLOWS, queues=["default"]))
    assert Split.get(value).status == "completed"


def test_the_workers_of_the_queue_with_ready_work_are_notified() -> None:
    decisions, steps = frozenset({QueueReady("decisions")}), frozenset({QueueReady("default")})
    assert commands.signal(Split, "v", "answered", None, None).notifications == decisions
    assert commands.retry(Split, "v").notifications == decisions
    assert commands.start(Split, [("v", {})]).notifications == steps
    assert commands.signal(Plain, "v", "answered", None, None).notifications == steps
    assert commands.retry(Plain, "v").notifications == steps


def test_without_such_a_queue_a_job_stays_in_the_queue_of_its_step(conn: Connection) -> None:
    value = next(values)
    Plain.start(value, {})
    driver = Driver(conn, WORKFLOWS, queues=["default"])
    move_on(driver, 3)
    assert tokens(conn) == [("answer", "resume", "parked", "default")]
    Plain.resume(value, "answered")
    move_on(driver)
    assert Plain.get(value).status == "completed"
