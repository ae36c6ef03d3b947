"""Filters, bulk operations and retention of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgflow import Done, Ok, Pgflow, Unique, Workflow, step, task
from pgflow.core.models.bulk import BulkResult
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.local import Local
from pgflow.store import retention
from pgflow.store.retention import Ages

TABLES = ("jobs", "task_results", "instances", "audit", "workers")


@task(queue="mail", tags=["mail"])
def send(order_id: int, to: str = "ada") -> None:
    """Never runs here."""


@task()
def count(n: int) -> None:
    """Never runs here either."""


@task(partition_by="tenant", weight=2)
def heavy(tenant: str) -> None:
    """Nor does this."""


@step(events=("ok",))
def only(ctx: Any) -> Ok:
    return Ok("ok")


class Order(Workflow[dict[str, Any]], unique=Unique("order")):
    initial = only
    transitions = {only: {"ok": Done}}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Order], tasks=[send, count, heavy])
    app.register()
    yield app
    app.close()


@pytest.fixture
def database(migrated: str, app: Pgflow) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        yield conn
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above


def ended(conn: Connection, number: int, status: str = "failed", **columns: Any) -> None:
    """Move a task to the results."""
    conn.execute(
        """with gone as (delete from pgflow.jobs where id = %(id)s returning *)
        insert into pgflow.task_results (
            id, task, queue, status, priority, attempt, max_attempts, enqueued_at, args, error, tags, metadata,
            unique_key, finished_at, key, cost)
        select id, step, queue, %(status)s, priority, 3, max_attempts, enqueued_at, args,
            '{"type": "OSError", "reason": "Timed out"}', tags, metadata, %(key)s, now() - %(age)s,
            key, cost from gone""",
        {"id": number, "status": status, "key": None, "age": timedelta(0), **columns},
    )


def enqueued(app: Pgflow, conn: Connection) -> list[int]:
    """Enqueue four tasks of `send`, of which two end, and one of `count`; returns their ids."""
    ids = [send.enqueue(number, to="bob" if number == 3 else "ada").id for number in range(1, 5)]
    ids.append(count.options(delay=timedelta(hours=1)).enqueue(5).id)
    ended(conn, ids[0])
    ended(conn, ids[1], "completed")
    return ids


def reasons(result: BulkResult) -> dict[int | None, str]:
    return {each.job: each.reason for each in result.skipped}


FILTERS = {
    "": [0, 1, 2, 3, 4],
    "task:send": [0, 1, 2, 3],
    "-task:send": [4],
    "state:failed": [0],
    "state:pending,completed": [1, 2, 3, 4],
    "-state:pending": [0, 1],
    "queue:mail -state:completed": [0, 2, 3],
    "tag:mail": [0, 1, 2, 3],
    "-tag:mail": [4],
    'error:"timed OUT"': [0, 1],
    "-error:timed": [2, 3, 4],
    "attempt:>=3": [0, 1],
    "-attempt:0": [0, 1],
    "priority:0": [0, 1, 2, 3, 4],
    "worker:7": [],
    "-worker:7": [0, 1, 2, 3, 4],
    "age:<1h": [0, 1, 2, 3, 4],
    "age:>1h": [],
    "args.order_id:2,3": [1, 2],
    'args.to:"bob"': [2],
    "-args.to:bob": [0, 1, 3, 4],
    "args.n:5": [4],
    "metadata.x:1": [],
    "id:x": [],
}


def test_each_filter_finds_its_tasks(app: Pgflow, database: Connection) -> None:
    ids = enqueued(app, database)
    found = {text: [ids.index(each.id) for each in app.find_tasks(text, order="oldest")] for text in FILTERS}
    assert found == FILTERS
    assert [each.id for each in app.find_tasks(f"id:{ids[0]},{ids[2]}")] == [ids[2], ids[0]]
    assert [each.id for each in app.find_tasks("task:send", limit=2, before=ids[3])] == [ids[2], ids[1]]


def test_a_filter_finds_live_tasks_in_memory() -> None:
    @task(queue="mail", tags=["mail"])
    def send(order_id: int) -> None:
        pass

    with Local(tasks=[send]) as app:
        late = send.options(delay=timedelta(hours=1))
        first, second = late.enqueue(1).id, late.enqueue(2).id
        assert [each.id for each in app.find_tasks("task:send queue:mail tag:mail state:pending")] == [second, first]
        assert [each.id for each in app.find_tasks("args.order_id:2 -state:failed attempt:0")] == [second]


def test_a_filter_without_a_kind_covers_instances_and_tasks(app: Pgflow, database: Connection) -> None:
    enqueued(app, database)
    app.start(Order, "a", {})
    dry = app.bulk.cancel("age:<1h", dry_run=True)
    assert (dry.matched, dry.changed, dry.states) == (6, 4, {"completed": 1, "failed": 1, "pending": 3, "running": 1})
    result = app.bulk.cancel("age:<1h", reason="why", batch=2)
    assert (result.matched, result.changed, result.skipped_count) == (6, 4, 2)
    assert {each.status for each in app.find_tasks("-state:completed,failed")} == {"cancelled"}
    assert app.find_tasks("state:cancelled")[0].error == {"reason": "why"}
    assert app.get(Order, "a").status == "cancelled"
    assert app.bulk.resume(result.operation or 0).changed == 4


def test_retry_revives_ended_tasks_and_hastens_waiting_ones(app: Pgflow, database: Connection) -> None:
    ids = enqueued(app, database)
    database.execute(
        "update pgflow.jobs set state = 'scheduled', attempt = 1, run_at = now() + '1 hour' where id = %s", [ids[2]]
    )
    result = app.bulk.retry("task:send")
    assert (result.changed, reasons(result)) == (2, {ids[1]: "it is completed", ids[3]: "it is pending"})
    revived, waiting = (app.find_tasks(f"id:{ids[place]}")[0] for place in (0, 2))
    assert (revived.status, revived.attempt, revived.args) == ("pending", 0, {"order_id": 1, "to": "ada"})
    assert waiting.run_at is not None
    assert waiting.run_at <= datetime.now(UTC) + timedelta(minutes=1)


def test_what_is_retried_still_counts_against_its_limits(app: Pgflow, database: Connection) -> None:
    ids = [heavy.enqueue("acme").id for _ in range(2)]
    for number in ids:
        ended(database, number)
    assert app.bulk.retry(f"id:{ids[0]}").changed == 1
    heavy.retry(ids[1])
    found = database.execute("select key, cost from pgflow.jobs where id = any (%s)", [ids]).fetchall()
    assert found == [("acme", 2), ("acme", 2)]


def test_of_a_unique_key_only_the_newest_is_retried(app: Pgflow, database: Connection) -> None:
    ids = [count.enqueue(number).id for number in range(4)]
    for number in ids[:3]:
        ended(database, number, key="a" if number != ids[2] else "b")
    database.execute("update pgflow.jobs set unique_key = 'b' where id = %s", [ids[3]])
    result = app.bulk.retry("state:failed task:count")
    assert result.changed == 1
    assert set(reasons(result)) == {ids[0], ids[2]}


def test_tasks_move_and_ended_ones_are_deleted(app: Pgflow, database: Connection) -> None:
    ids = enqueued(app, database)
    moved = app.bulk.move("task:send", queue="slow")
    assert (moved.changed, reasons(moved)) == (2, {ids[0]: "it is failed", ids[1]: "it is completed"})
    assert app.bulk.reprioritise("queue:slow", priority=-2).changed == 2
    assert app.bulk.reschedule("priority:-2", at=datetime.now(UTC) + timedelta(hours=1)).changed == 2
    assert len(app.find_tasks("queue:slow priority:-2")) == 2
    deleted = app.bulk.delete("task:send")
    assert (deleted.changed, set(reasons(deleted))) == (2, {ids[2], ids[3]})


def test_retention_covers_tasks(app: Pgflow, database: Connection) -> None:
    ids = [count.enqueue(number).id for number in range(5)]
    for number, status, days in zip(ids, ("completed", "completed", "failed", "failed"), (8, 6, 31, 29), strict=False):
        ended(database, number, status, age=timedelta(days=days))
    week = Ages(timedelta(days=7), timedelta(days=30), timedelta(days=30), overrides=True)
    assert run(database, retention.prune("pgflow", week)).deleted == 2
    assert [each.id for each in app.find_tasks("", order="oldest")] == [ids[1], ids[3], ids[4]]
    database.execute("update pgflow.tasks set options = options || '{\"retain\": {\"max\": 1}}' where name = 'count'")
    assert run(database, retention.prune("pgflow", week)).deleted == 1
    assert [each.id for each in app.find_tasks("", order="oldest")] == [ids[1], ids[4]]
