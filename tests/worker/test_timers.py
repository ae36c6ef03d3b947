"""Timers: never early, once, and also if no worker lived while they ran."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Snooze, Unique, Wait, Workflow, step
from pgflow.database.connect import Connection
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, one, rows, steps, until_all_ended, until_status
from tests.worker.flows import Paused
from tests.worker.processes import Processes
from tests.worker.waiting import until

SHORTLY = timedelta(milliseconds=300)


@step
def begin(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step
def end(ctx: Context[Any]) -> Ok:
    return Ok("done")


nap = Wait(SHORTLY).named("nap")


class Napping(Workflow[dict[str, Any]], unique=Unique("napping")):
    """A step, a timer, a step."""

    initial = begin
    transitions = {begin: {"done": nap}, nap: {"timeout": end}, end: {"done": Done}}


NAPS: list[int] = []


@step
def drowse(ctx: Context[Any]) -> Ok | Snooze:
    if len(NAPS) == ctx.initial["naps"]:
        return Ok("done")
    NAPS.append(ctx.attempt)
    return Snooze(timedelta(milliseconds=50))


class Drowsy(Workflow[dict[str, Any]], unique=Unique("drowsy")):
    """A step that asks to be called again later."""

    initial = drowse
    transitions = {drowse: {"done": Done}}


WORKFLOWS = (Napping, Paused, Drowsy)


def test_timers_never_fire_early_and_not_much_later(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    Napping.start_many([(f"v{number}", {}) for number in range(200)])
    assert until_all_ended(conn) == {"completed": 200}
    slept = rows(
        conn,
        """select extract(epoch from w.finished_at - b.finished_at)::float from pgflow.step_results b
        join pgflow.step_results w using (run) where b.step = 'begin' and w.step = 'nap'""",
    )
    assert len(slept) == 200
    assert min(slept)[0] >= SHORTLY.total_seconds()
    assert sorted(slept)[100][0] < SHORTLY.total_seconds() + 1
    assert leftovers(conn) == {}


def test_a_timer_survives_the_death_of_the_worker_that_set_it(
    app: Pgflow, conn: Connection, processes: Processes
) -> None:
    first = processes.start()
    Paused.start("v")
    waiting = until_status(Paused, "v", "waiting")
    first.kill()
    (wait,) = waiting.waiting_for
    assert wait.kind == "timer"
    until(lambda: one(conn, "select now() > %s - interval '1 second'", wait.until), "half of the time")
    processes.start()
    done = until_status(Paused, "v")
    assert steps(done) == ["pause", "after"]
    assert wait.until is not None
    assert done.history[0].at >= wait.until
    assert leftovers(conn) == {}


def test_a_timer_that_came_while_no_worker_lived_fires_once_when_one_does(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    first = work()
    Napping.start("v")
    until_status(Napping, "v", "waiting")
    first.stop()
    until(lambda: one(conn, "select run_at < now() from pgflow.jobs"), "the timer's moment")
    work()
    assert steps(until_status(Napping, "v")) == ["begin", "nap", "end"]


def test_a_timer_of_a_cancelled_run_does_nothing_to_the_next_one(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    old = Napping.start("v")
    until_status(Napping, "v", "waiting")
    Napping.cancel("v")
    new = Napping.start("v")
    done = until_status(Napping, "v")
    assert (done.run, done.status, steps(done)) == (new.run, "completed", ["begin", "nap", "end"])
    assert done.history[1].at - done.history[0].at >= SHORTLY
    assert rows(conn, "select step from pgflow.step_results where run = %s", old.run) == [("begin",)]


def test_a_snooze_comes_again_and_costs_no_attempt(app: Pgflow, conn: Connection, work: Work) -> None:
    work()
    NAPS.clear()
    Drowsy.start("v", {"naps": 8})
    done = until_status(Drowsy, "v")
    assert (done.status, NAPS, done.history[0].attempt) == ("completed", [1] * 8, 1)
    assert done.history[0].at - done.created_at >= 8 * timedelta(milliseconds=50)
