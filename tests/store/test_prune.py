"""Pruning deletes old ended instances with their results and signals, page by page, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import AlreadyRunning, InvalidValue
from pgflow.store import instance, retention
from pgflow.store.retention import Ages
from tests.store.driver import Driver

TABLES = ("instances", "step_results", "jobs", "signals", "scheduled_signals", "business_ids", "workers")


@step(events=("paid",))
def await_payment(ctx: Context[Any]) -> Async:
    return Async()


class Paid(Workflow[dict[str, Any]], unique=Unique("paid")):
    initial = await_payment
    transitions = {await_payment: {"paid": Done}}


class Shared(Workflow[dict[str, Any]], unique=Unique("shared")):
    initial = await_payment
    transitions = {await_payment: {"paid": Done}}


class Exclusive(Workflow[dict[str, Any]], unique=Unique("shared", scope="global")):
    """Overlaps with the scope of Shared."""

    initial = await_payment
    transitions = {await_payment: {"paid": Done}}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Paid, Shared, Exclusive])
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
    """Complete instances, each with a result and a consumed signal."""
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


def test_old_instances_are_deleted_with_their_results_and_signals(app: Pgflow, database: Connection) -> None:
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


def test_an_active_instance_of_any_age_is_kept(app: Pgflow, database: Connection) -> None:
    app.start(Paid, "v", {})
    database.execute("update pgflow.instances set created_at = now() - interval '10 years'")
    assert app.prune(timedelta(0)) == 0
    assert left(database) == ["paid::v"]


def test_only_instances_with_these_statuses_are_deleted(app: Pgflow, database: Connection) -> None:
    completed(database, app, "a", "b", "c")
    for value, status in (("a", "completed"), ("b", "failed"), ("c", "cancelled")):
        ended(database, value, days=1, status=status)
    assert app.prune(timedelta(hours=1), ["failed"]) == 1
    assert app.prune(timedelta(hours=1), ["failed", "cancelled"]) == 1
    assert left(database) == ["paid::a"]


def test_batches_cover_all_instances_and_skip_those_that_are_kept(app: Pgflow, database: Connection) -> None:
    completed(database, app, *(f"v{number}" for number in range(7)))
    app.start(Paid, "active", {})
    for number in range(7):
        ended(database, f"v{number}", days=40)
    database.execute("update pgflow.instances set finished_at = now() where id = 'paid::v3'")  # it ran for long
    deleted = []
    while True:
        batch = run(database, retention.prune("pgflow", Ages(completed=timedelta(days=30)), limit=2))
        deleted.append(batch.deleted)
        if batch.last is None:
            break
    assert deleted == [2, 2, 2, 0]
    assert left(database) == ["paid::active", "paid::v3"]


@pytest.mark.parametrize("age", [timedelta(days=-1), timedelta(days=50_000), 30])
def test_an_invalid_age_is_rejected(app: Pgflow, age: Any) -> None:
    with pytest.raises(InvalidValue, match="older_than must be"):
        app.prune(age)


def test_a_status_that_is_not_final_is_rejected(app: Pgflow) -> None:
    with pytest.raises(InvalidValue, match=r"statuses must be of .*, got 'running'"):
        app.prune(timedelta(days=1), ["completed", "running"])


def business_ids(conn: Connection) -> list[str]:
    return [row[0] for row in conn.execute("select id from pgflow.business_ids order by id").fetchall()]


def test_a_locked_business_id_is_deleted_with_its_last_instance(app: Pgflow, database: Connection) -> None:
    for value in ("a", "b", "c"):
        app.start(Shared, value, {})
        app.cancel(Shared, value)
    app.start(Exclusive, "a", {})
    assert business_ids(database) == ["shared::a", "shared::b", "shared::c"]
    assert app.prune(timedelta(0)) == 3
    assert business_ids(database) == ["shared::a"], "an active instance has it"
    app.storage.delete("shared::a")
    assert business_ids(database) == []


def test_a_business_id_locked_by_another_start_is_kept(app: Pgflow, database: Connection, migrated: str) -> None:
    app.start(Shared, "a", {})
    app.cancel(Shared, "a")
    with connect(migrated, "client") as other, other.transaction():
        app.start(Exclusive, "a", {}, conn=other)
        assert app.prune(timedelta(0)) == 1
        assert business_ids(database) == ["shared::a"]
    with pytest.raises(AlreadyRunning):
        app.start(Shared, "a", {})


def test_pages_cover_all_orphans(app: Pgflow, database: Connection) -> None:
    completed(database, app, *(f"v{number}" for number in range(7)))
    app.start(Paid, "active", {})
    database.execute("delete from pgflow.instances where id in ('paid::v1', 'paid::v2', 'paid::v6')")
    after, deleted = 0, 0
    while True:
        page = run(database, instance.prune_orphans("pgflow", after=after, limit=2))
        deleted += page.deleted
        if page.last is None:
            break
        assert page.last > after
        after = page.last
    assert deleted == 6
    for table, count in (("step_results", 4), ("signals", 4), ("jobs", 1)):
        query = f"select count(*) from pgflow.{table}"  # noqa: S608 -- the names stand one line above
        assert database.execute(query.encode()).fetchall() == [(count,)]
    assert run(database, instance.prune_orphans("pgflow")).deleted == 0


def test_orphans_with_locked_jobs_are_left_to_a_later_call(app: Pgflow, database: Connection, migrated: str) -> None:
    app.start(Paid, "v", {})
    database.execute("delete from pgflow.instances")
    with connect(migrated, "worker") as other, other.transaction():
        other.execute("select from pgflow.jobs for update")
        assert run(database, instance.prune_orphans("pgflow")).deleted == 0
    assert run(database, instance.prune_orphans("pgflow")).deleted == 1
