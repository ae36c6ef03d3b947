"""Pruning: what ended long ago goes with all that belongs to it, a page at a time, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step
from pgflow.errors import InvalidValue
from pgflow.store import instance
from pgflow.store.connect import Connection, connect
from pgflow.store.statement import run
from tests.store.driver import Driver

TABLES = ("instances", "step_results", "jobs", "signals", "scheduled_signals", "workers")


@step(events=("paid",))
def await_payment(ctx: Context[Any]) -> Async:
    return Async()


class Paid(Workflow[dict[str, Any]], unique=Unique("paid")):
    initial = await_payment
    transitions = {await_payment: {"paid": Done}}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Paid])
    app.register()
    yield app
    app.close()


@pytest.fixture
def database(migrated: str, app: Pgflow) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        yield conn
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand above


def completed(conn: Connection, app: Pgflow, *values: str) -> None:
    """Instances that have ended, each with a result and a consumed signal."""
    driver = Driver(conn, [Paid])
    app.start_many(Paid, [(value, {}) for value in values])
    driver.turn()
    driver.settle()
    for value in values:
        app.resume(Paid, value, "paid", {"n": 1})
    driver.turn()
    driver.settle()


def ended(conn: Connection, value: str, days: float, status: str = "completed") -> None:
    conn.execute(
        "update pgflow.instances set finished_at = now() - %s, created_at = now() - %s - interval '1 hour', status = %s"
        " where id = %s",
        [timedelta(days=days), timedelta(days=days), status, f"paid::{value}"],
    )


def left(conn: Connection) -> list[str]:
    return [row[0] for row in conn.execute("select id from pgflow.instances order by id").fetchall()]


def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(app: Pgflow, database: Connection) -> None:
    completed(database, app, "old", "young")
    ended(database, "old", days=40)
    ended(database, "young", days=20)
    assert app.prune(timedelta(days=30)) == 1
    assert left(database) == ["paid::young"]
    for table in ("step_results", "signals"):
        count = f"select count(*) from pgflow.{table}"  # noqa: S608 -- the names stand one line above
        assert database.execute(count.encode()).fetchall() == [(1,)]
    assert asyncio.run(app.aprune(timedelta(0))) == 1
    assert left(database) == []


def test_an_active_instance_stays_however_old_it_is(app: Pgflow, database: Connection) -> None:
    app.start(Paid, "v", {})
    database.execute("update pgflow.instances set created_at = now() - interval '10 years'")
    assert app.prune(timedelta(0)) == 0
    assert left(database) == ["paid::v"]


def test_only_what_ended_so_goes(app: Pgflow, database: Connection) -> None:
    completed(database, app, "a", "b", "c")
    for value, status in (("a", "completed"), ("b", "failed"), ("c", "cancelled")):
        ended(database, value, days=1, status=status)
    assert app.prune(timedelta(hours=1), ["failed"]) == 1
    assert app.prune(timedelta(hours=1), ["failed", "cancelled"]) == 1
    assert left(database) == ["paid::a"]


def test_pages_lead_to_the_end_past_what_stays(app: Pgflow, database: Connection) -> None:
    completed(database, app, *(f"v{number}" for number in range(7)))
    app.start(Paid, "active", {})
    for number in range(7):
        ended(database, f"v{number}", days=40)
    database.execute("update pgflow.instances set finished_at = now() where id = 'paid::v3'")  # it took long
    after, deleted = 0, []
    while True:
        page = run(
            database,
            instance.prune("pgflow", older_than=timedelta(days=30), statuses=["completed"], after=after, limit=2),
        )
        deleted.append(page.instances)
        if page.last is None:
            break
        after = page.last
    assert sum(deleted) == 6
    assert left(database) == ["paid::active", "paid::v3"]


def test_it_ends_with_the_first_that_began_too_late(app: Pgflow, database: Connection) -> None:
    completed(database, app, "a", "b", "c")
    page = run(database, instance.prune("pgflow", older_than=timedelta(days=1), statuses=["completed"], limit=2))
    assert (page.instances, page.last) == (0, None)


@pytest.mark.parametrize("age", [timedelta(days=-1), timedelta(days=50_000), 30])
def test_an_age_that_cannot_be_is_refused(app: Pgflow, age: Any) -> None:
    with pytest.raises(InvalidValue, match="an age of"):
        app.prune(age)


def test_a_status_that_no_instance_ends_with_is_refused(app: Pgflow) -> None:
    with pytest.raises(InvalidValue, match="no instance ends with 'running'"):
        app.prune(timedelta(days=1), ["completed", "running"])
