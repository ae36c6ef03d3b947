"""One active instance per key, however many ask for it at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from pgflow import Context, Done, Instance, Ok, Pgflow, Started, Unique, Workflow, step
from pgflow.database.connect import Connection
from pgflow.errors import AlreadyRunning, InstanceNotFound, InvalidValue, UnknownWorkflow
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows, until_all_ended, until_status

MANY = 50


@step(events=("well", "badly"))
def end(ctx: Context[dict[str, Any]]) -> Ok:
    if ctx.initial.get("fails"):
        raise RuntimeError("as intended")
    return Ok("well")


class Single(Workflow[dict[str, Any]], unique=Unique("single")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


class Anything(Workflow[dict[str, Any]], unique=Unique("anything", scope="none")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


class Everywhere(Workflow[dict[str, Any]], unique=Unique("shared", scope="global")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


class Elsewhere(Workflow[dict[str, Any]], unique=Unique("shared", scope="global")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


class Neighbour(Workflow[dict[str, Any]], unique=Unique("single")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


class Nearby(Workflow[dict[str, Any]], unique=Unique("shared")):
    initial = end
    transitions = {end: {"well": Done, "badly": Done}}


WORKFLOWS = (Single, Anything, Everywhere, Elsewhere, Neighbour, Nearby)


def check(conn: Connection, outcomes: list[Started | AlreadyRunning]) -> None:
    winners = [outcome for outcome in outcomes if isinstance(outcome, Started)]
    assert len(outcomes) == MANY
    assert len(winners) == 1
    assert winners[0].created
    assert rows(conn, "select run, id from pgflow.instances") == [(winners[0].run, "single::v")]
    assert one(conn, "select count(*) from pgflow.jobs") == 1


def test_of_fifty_threads_that_start_one_key_one_wins(app: Pgflow, conn: Connection) -> None:
    together = Barrier(MANY)

    def start(number: int) -> Started | AlreadyRunning:
        together.wait(30)
        try:
            return Single.start("v", {"number": number})
        except AlreadyRunning as refusal:
            return refusal

    with ThreadPoolExecutor(MANY) as threads:
        check(conn, list(threads.map(start, range(MANY))))


def test_of_fifty_tasks_that_start_one_key_one_wins(app: Pgflow, conn: Connection) -> None:
    async def start(number: int) -> Started | AlreadyRunning:
        try:
            return await Single.astart("v", {"number": number})
        except AlreadyRunning as refusal:
            return refusal

    async def play() -> list[Started | AlreadyRunning]:
        try:
            return list(await asyncio.gather(*(start(number) for number in range(MANY))))
        finally:
            await app.aclose()

    check(conn, asyncio.run(play()))


def test_batches_with_the_same_keys_in_other_orders_neither_deadlock_nor_double(app: Pgflow, conn: Connection) -> None:
    values = [f"v{number}" for number in range(200)]
    together = Barrier(4)

    def start(number: int) -> list[Started]:
        together.wait(30)
        return Single.start_many([(value, {}) for value in (values if number % 2 else reversed(values))])

    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(start, range(4)))
    assert sum(started.created for batch in batches for started in batch) == 200
    runs = dict(rows(conn, "select id, run from pgflow.instances"))
    assert {(started.id, started.run) for batch in batches for started in batch} == set(runs.items())
    assert one(conn, "select count(*) from pgflow.instances") == one(conn, "select count(*) from pgflow.jobs") == 200


def test_a_key_is_free_again_when_its_instance_has_ended(app: Pgflow, conn: Connection, work: Work) -> None:
    first = Single.start("v")
    with pytest.raises(AlreadyRunning):
        Single.start("v")
    (again,) = Single.start_many([("v", {})])
    assert (again.run, again.created) == (first.run, False)
    work()
    assert until_status(Single, "v").status == "completed"
    assert Single.start("v").run > first.run
    assert until_all_ended(conn) == {"completed": 2}


def test_a_value_twice_in_one_batch_starts_once(app: Pgflow, conn: Connection) -> None:
    first, second = Single.start_many([("v", {}), ("v", {})])
    assert (first.created, second.created, first.run) == (True, False, second.run)
    assert one(conn, "select count(*) from pgflow.jobs") == 1


def test_two_workflows_may_have_the_same_key_and_each_reads_its_own(app: Pgflow) -> None:
    here, there = Single.start("v", {"of": "here"}), Neighbour.start("v", {"of": "there"})
    assert here.id == there.id
    assert (Single.get("v").run, Neighbour.get("v").run) == (here.run, there.run)
    assert Single.get("v").input == {"of": "here"}
    Single.cancel("v")
    assert (Single.get("v").status, Neighbour.get("v").status) == ("cancelled", "running")


def test_a_global_key_is_exclusive_among_all_workflows_that_have_it(app: Pgflow, conn: Connection) -> None:
    active = Everywhere.start("v")
    with pytest.raises(AlreadyRunning, match=rf"in run {active.run}, of this workflow or another\n"):
        Elsewhere.start("v")
    with pytest.raises(Exception, match=rf"Everywhere 'shared::v' is already running, in run {active.run}\n"):
        conn.execute("select pgflow.start('Elsewhere', 'v')")
    with pytest.raises(AlreadyRunning, match=rf"in run {active.run}\n"):
        Nearby.start("v")  # unique in its own workflow only, but the key is the same
    with pytest.raises(Exception, match=rf"Everywhere 'shared::v' is already running, in run {active.run}\n"):
        conn.execute("select pgflow.start('Nearby', 'v')")
    Everywhere.cancel("v")
    near = Nearby.start("v")
    with pytest.raises(AlreadyRunning, match=rf"in run {near.run}, of this workflow or another\n"):
        Elsewhere.start("v")
    Nearby.cancel("v")
    assert Elsewhere.start("v").created


@pytest.mark.parametrize("isolation", IsolationLevel)
def test_of_many_starts_of_one_key_in_three_workflows_of_two_scopes_one_wins(
    app: Pgflow, conn: Connection, isolation: IsolationLevel
) -> None:
    together = Barrier(24)
    kinds = (Everywhere, Nearby, Elsewhere)

    def start(number: int) -> str:
        with psycopg.connect(app.dsn) as own:
            own.isolation_level = isolation
            own.execute("select count(*) from pgflow.instances")  # the snapshot of the stricter levels
            together.wait(30)
            try:
                kinds[number % 3].start("v", {"number": number}, conn=own)
                own.commit()
            except (AlreadyRunning, psycopg.errors.SerializationFailure) as refusal:
                return type(refusal).__name__
        return "started"

    with ThreadPoolExecutor(24) as pool:
        outcomes = list(pool.map(start, range(24)))
    assert outcomes.count("started") == 1
    assert one(conn, "select count(*) from pgflow.instances where status = 'running'") == 1
    is_strict = isolation > IsolationLevel.READ_COMMITTED
    assert set(outcomes) == {"started", "SerializationFailure" if is_strict else "AlreadyRunning"}


def test_the_usual_scope_locks_no_business_id(app: Pgflow, conn: Connection) -> None:
    Single.start("v")
    Anything.start("v")
    assert one(conn, "select count(*) from pgflow.business_ids where id <> 'shared::v'") == 0


def test_a_refusal_names_the_active_run(app: Pgflow, conn: Connection) -> None:
    Single.start("v")
    Single.cancel("v")
    active = Single.start("v")
    with pytest.raises(AlreadyRunning, match=rf"^Single 'single::v' is already running, in run {active.run}\n"):
        Single.start("v")
    with pytest.raises(Exception, match=rf"Single 'single::v' is already running, in run {active.run}\n"):
        conn.execute("select pgflow.start('Single', 'v')")


def test_without_uniqueness_any_number_run_and_each_is_reached_by_its_whole_id(app: Pgflow, work: Work) -> None:
    first, second = Anything.start("v"), Anything.start("v")
    assert first.id != second.id
    assert all(re.fullmatch(r"anything::v::[0-9a-f]{8}", each.id) for each in (first, second))
    assert {each.id for each in Anything.list()} == {first.id, second.id}
    Anything.cancel(first.id)
    assert (Anything.get(first.id).status, Anything.get(second.id).status) == ("cancelled", "running")
    assert [each.run for each in Anything.runs(first.id)] == [first.run]
    work()
    assert until_status(Anything, second.id).status == "completed"


CALLS: dict[str, Callable[[], object]] = {
    "get": lambda: Anything.get("v"),
    "resume": lambda: Anything.resume("v", "well"),
    "cancel": lambda: Anything.cancel("v"),
    "retry": lambda: Anything.retry("v"),
    "runs": lambda: Anything.runs("v"),
}


@pytest.mark.parametrize("name", CALLS)
def test_without_uniqueness_a_bare_value_names_no_instance(app: Pgflow, name: str) -> None:
    with pytest.raises(InvalidValue, match="Anything may have many instances of 'v'") as caught:
        CALLS[name]()
    assert caught.value.hint == "Give the whole id, which start returned: 'anything::v::…'."


def test_the_runs_of_a_value_are_its_history_newest_first(app: Pgflow, conn: Connection, work: Work) -> None:
    assert Single.runs("v") == []
    Single.start("v")
    Single.cancel("v", reason="a mistake")
    work()
    Single.start("v", {"number": 2})
    until_status(Single, "v")
    last = Single.start("v", delay=timedelta(hours=1))
    Single.start("other")
    Neighbour.start("v")
    runs = Single.runs("v")
    assert [each.status for each in runs] == ["pending", "completed", "cancelled"]
    assert (runs[0].run, runs[1].input, runs[2].error) == (last.run, {"number": 2}, {"reason": "a mistake"})
    assert Single.runs("single::v") == runs == asyncio.run(_aruns(app))
    assert Single.runs("v", limit=1) == runs[:1]
    assert Single.runs("v", before=runs[0].run) == runs[1:]


async def _aruns(app: Pgflow) -> list[Instance]:
    try:
        return await Single.aruns("v")
    finally:
        await app.aclose()


def test_an_app_takes_the_name_of_a_workflow_for_its_class(app: Pgflow) -> None:
    started = app.start("Single", "v", {"number": 1})
    assert app.get("Single", "v") == app.get(Single, "single::v") == Single.get("v")
    assert app.list("Single") == Single.list()
    assert [each.run for each in app.runs("Single", "v")] == [started.run]
    assert app.resume("Single", "v", "well") == "kept"
    app.cancel("Single", "v")
    with pytest.raises(InstanceNotFound):
        app.get("Neighbour", "v")
    with pytest.raises(UnknownWorkflow, match="this app has no workflow named 'Missing'"):
        app.start("Missing", "v")
