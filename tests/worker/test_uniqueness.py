"""One active instance per key, however many ask for it at once."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Started, Unique, Workflow, step
from pgflow.errors import AlreadyRunning
from pgflow.store.connect import Connection
from tests.worker.conftest import Work
from tests.worker.sight import one, rows, until_all_ended, until_status

MANY = 50


@step(events=("well", "badly"))
def end(ctx: Context[dict[str, Any]]) -> Ok:
    if ctx.initial.get("fails"):
        raise RuntimeError("as told")
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


WORKFLOWS = (Single, Anything, Everywhere, Elsewhere)


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


def test_a_global_key_is_shared_and_a_free_one_is_not(app: Pgflow, conn: Connection) -> None:
    Everywhere.start("v")
    with pytest.raises(AlreadyRunning):
        Elsewhere.start("v")
    assert Anything.start("v").id != Anything.start("v").id
