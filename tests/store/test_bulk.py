"""Bulk operations change what a filter matches, in batches, and report and record what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.core.models.bulk import BulkResult
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import InstanceNotFound, InvalidFilter, InvalidValue, UnknownOption
from pgflow.store import audit, bulk
from tests.store.driver import Driver
from tests.store.granted_roles import GrantedRoles

TABLES = ("instances", "step_results", "jobs", "signals", "scheduled_signals", "business_ids", "workers", "audit")


@step(events=("ok",))
def first(ctx: Context[Any]) -> Ok:
    return Ok("ok")


@step(events=("paid",))
def pay(ctx: Context[Any]) -> Async:
    return Async()


class Order(Workflow[dict[str, Any]], unique=Unique("order")):
    initial = first
    transitions = {first: {"ok": pay}, pay: {"paid": Done}}


class Visit(Workflow[dict[str, Any]], unique=Unique("visit", scope="none")):
    initial = first
    transitions = {first: {"ok": Done}}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Order, Visit])
    app.register()
    yield app
    app.close()


@pytest.fixture
def database(migrated: str, app: Pgflow) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        yield conn
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above


def fail(conn: Connection, *values: str) -> None:
    """Let active instances fail, as a settle does."""
    ids = [f"order::{value}" for value in values]
    conn.execute(
        """update pgflow.instances set status = 'failed', finished_at = now(), revision = revision + 1,
            error = '{"step": "pay", "reason": "timed out", "attempt": 5}' where id = any (%s)""",
        [ids],
    )
    conn.execute("delete from pgflow.jobs j using pgflow.instances i where i.run = j.run and i.id = any (%s)", [ids])


def statuses(app: Pgflow) -> dict[str, str]:
    return {each.id.partition("::")[2]: each.status for each in app.find("", limit=1000)}


def reasons(result: BulkResult) -> dict[str, str]:
    return {each.id.partition("::")[2]: each.reason for each in result.skipped if each.id}


def test_retry_covers_all_failed_instances_in_batches(app: Pgflow, database: Connection) -> None:
    values = [f"v{number}" for number in range(7)]
    app.start_many(Order, [(value, {}) for value in values])
    fail(database, *values[:5])
    seen: list[tuple[int, int]] = []
    dry = app.bulk.retry("workflow:Order", dry_run=True)
    assert (dry.matched, dry.changed, dry.states, dry.operation) == (7, 5, {"failed": 5, "running": 2}, None)
    done = app.bulk.retry("state:failed workflow:Order", batch=2, on_progress=lambda *each: seen.append(each))
    assert (done.matched, done.changed, done.skipped, done.is_dry_run) == (5, 5, (), False)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert set(statuses(app).values()) == {"running"}
    Driver(database, [Order]).turn()
    jobs = database.execute("select kind, step, count(*) from pgflow.jobs group by 1, 2 order by 1, 2").fetchall()
    assert sum(count for *_, count in jobs) == 7


def test_only_the_newest_run_of_a_business_id_is_retried(app: Pgflow, database: Connection) -> None:
    for _ in range(2):
        app.start(Order, "a", {})
        fail(database, "a")
        app.start(Order, "b", {})
        app.cancel(Order, "b")
    app.start(Order, "b", {})
    fail(database, "b")
    app.start(Order, "b", {})  # active
    result = app.bulk.retry("state:failed")
    assert result.changed == 1
    assert [each.id for each in result.skipped] == ["order::a", *["order::b"] * 3]  # `fail` is for all runs of b
    assert all("is newer" in each.reason for each in result.skipped)
    newest = app.get(Order, "a")
    assert (newest.status, len(app.runs(Order, "a"))) == ("running", 2)


def test_instances_without_a_unique_key_are_all_retried(app: Pgflow, database: Connection) -> None:
    for _ in range(3):
        app.start(Visit, "ann", {})
    database.execute("update pgflow.instances set status = 'failed', finished_at = now()")
    database.execute("delete from pgflow.jobs")
    assert app.bulk.retry("workflow:Visit").changed == 3


def test_cancel_deletes_jobs_and_timers_and_skips_what_has_ended(app: Pgflow, database: Connection) -> None:
    app.start_many(Order, [(value, {}) for value in ("a", "b", "c")], tags=["x"])
    fail(database, "c")
    app.schedule_resume(Order, "a", pay, timedelta(hours=1), "paid")
    result = app.bulk.cancel("tag:x", reason="ordered twice")
    assert (result.changed, reasons(result)) == (2, {"c": "it is failed"})
    assert statuses(app) == {"a": "cancelled", "b": "cancelled", "c": "failed"}
    assert app.get(Order, "a").error == {"reason": "ordered twice"}
    for table in ("jobs", "scheduled_signals"):
        assert database.execute(f"select count(*) from pgflow.{table}".encode()).fetchall() == [(0,)]  # noqa: S608


def test_the_result_of_a_cancelled_step_in_flight_is_fenced_off(app: Pgflow, database: Connection) -> None:
    driver = Driver(database, [Order])
    app.start(Order, "a", {})
    driver.claim()
    driver.run_steps()
    assert app.bulk.cancel("id:a").changed == 1
    driver.settle()
    assert app.get(Order, "a").history == ()


def test_jobs_move_to_another_queue_priority_and_time(app: Pgflow, database: Connection) -> None:
    app.start_many(Order, [("a", {}), ("b", {})])
    assert app.bulk.move("id:a", queue="slow").changed == 1
    assert app.bulk.reprioritise("workflow:Order", priority=-5).changed == 2
    later = datetime.now(UTC) + timedelta(hours=1)
    assert app.bulk.reschedule("queue:slow", at=later).changed == 1
    rows = """select i.id, j.queue, j.priority, j.state, j.run_at
        from pgflow.jobs j join pgflow.instances i using (run) order by 1"""
    a, b = database.execute(rows).fetchall()
    assert a == ("order::a", "slow", -5, "scheduled", later)
    assert b[:4] == ("order::b", "default", -5, "ready")
    assert app.bulk.reschedule("id:a", at=datetime.now(UTC)).changed == 1
    assert database.execute("select state from pgflow.jobs where queue = 'slow'").fetchall() == [("ready",)]


def test_steps_that_run_and_waits_are_left_alone(app: Pgflow, database: Connection) -> None:
    driver = Driver(database, [Order])
    app.start_many(Order, [("a", {}), ("b", {})])
    driver.turn()
    driver.settle()
    driver.turn()
    driver.settle()  # both wait for a signal now
    app.start(Order, "c", {})
    driver.claim()
    result = app.bulk.move("workflow:Order", queue="slow")
    assert (result.changed, set(reasons(result).values())) == (0, {"no step of it waits for a worker"})
    result = app.bulk.reprioritise("workflow:Order", priority=3)
    assert (result.changed, reasons(result)) == (2, {"c": "its steps run now"})


def test_delete_removes_ended_instances_with_everything(app: Pgflow, database: Connection) -> None:
    driver = Driver(database, [Visit, Order])
    app.start_many(Visit, [("a", {}), ("b", {})])
    driver.turn()
    driver.settle()
    app.start(Order, "c", {})
    app.resume(Order, "c", "paid", {})
    app.cancel(Order, "c")
    app.start(Order, "d", {})
    result = app.bulk.delete("age:<1h")
    assert (result.matched, result.changed, reasons(result)) == (4, 3, {"d": "it is running"})
    assert statuses(app) == {"d": "running"}
    for table in ("step_results", "signals"):
        assert database.execute(f"select count(*) from pgflow.{table}".encode()).fetchall() == [(0,)]  # noqa: S608


def test_what_another_session_has_locked_is_skipped_and_reported(
    app: Pgflow, database: Connection, migrated: str
) -> None:
    app.start_many(Order, [("a", {}), ("b", {})])
    with connect(migrated, "client") as other, other.transaction():
        app.cancel(Order, "a", conn=other)
        result = app.bulk.cancel("workflow:Order")
        assert (result.changed, reasons(result)) == (1, {"a": "another session has locked it"})


def test_an_operation_continues_where_it_stopped(app: Pgflow, database: Connection) -> None:
    app.start_many(Order, [(f"v{number}", {}) for number in range(5)])

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.bulk.cancel("workflow:Order", batch=2, on_progress=interrupt)
    app.start(Order, "later", {})  # began after the operation, which does not cover it
    (entry,) = run(database, audit.list("pgflow", action="bulk"))
    assert (entry.details["matched"], entry.details["finished_at"]) == (2, None)
    result = app.bulk.resume(entry.id)
    assert (result.action, result.matched, result.changed, result.operation) == ("cancel", 5, 5, entry.id)
    assert statuses(app)["later"] == "running"
    again = asyncio.run(app.bulk.aresume(entry.id))
    assert (again.matched, again.changed) == (5, 5)
    with pytest.raises(InstanceNotFound, match="there is no bulk operation"):
        app.bulk.resume(entry.id + 1000)


def test_a_batch_whose_transaction_is_rolled_back_is_not_counted(app: Pgflow, database: Connection) -> None:
    app.start_many(Order, [(f"v{number}", {}) for number in range(3)])
    operation = run(database, bulk.begin("pgflow", "cancel", {"workflow": ["Order"]}, options={}, text="", who=None))
    with database.transaction(force_rollback=True):
        assert run(database, bulk.batch("pgflow", operation, limit=10)).changed == 3
    assert set(statuses(app).values()) == {"running"}
    assert run(database, bulk.batch("pgflow", operation, limit=10)).changed == 3


def test_each_operation_and_each_call_is_in_the_audit(app: Pgflow, database: Connection) -> None:
    app.start_many(Order, [("a", {}), ("b", {})])
    app.bulk.cancel("id:a", by="ada", reason="why")
    app.cancel(Order, "b", reason="test")
    cancelled, operation = run(database, audit.list("pgflow"))
    assert operation.action == "bulk cancel"
    assert operation.who.endswith(" (ada)")
    details = operation.details
    assert (details["filter"], details["options"]) == ("id:a", {"reason": "why"})
    assert (details["matched"], details["changed"], details["skipped"]) == (1, 1, 0)
    assert details["finished_at"] is not None
    assert (cancelled.action, cancelled.details["id"], cancelled.details["reason"]) == ("cancel", "order::b", "test")
    assert [each.id for each in run(database, audit.list("pgflow", who="(ada)"))] == [operation.id]
    assert [each.id for each in run(database, audit.list("pgflow", before=cancelled.id))] == [operation.id]


def test_old_rows_of_the_audit_are_deleted(app: Pgflow, database: Connection) -> None:
    app.start(Order, "a", {})
    app.cancel(Order, "a")
    assert not run(database, audit.forget("pgflow", timedelta(days=365)))
    database.execute("update pgflow.audit set at = at - interval '366 days'")
    assert run(database, audit.forget("pgflow", timedelta(days=365), limit=1))
    assert run(database, audit.list("pgflow")) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bulk: bulk.retry(""), "the filter is empty"),
        (lambda bulk: bulk.retry("  "), "the filter is empty"),
        (lambda bulk: bulk.move("state:running", queue="a b"), "queue='a b'"),
        (lambda bulk: bulk.reprioritise("state:running", priority=40_000), "priority=40000"),
        (lambda bulk: bulk.reschedule("state:running", at=datetime(2030, 1, 1)), "with a time zone"),  # noqa: DTZ001
        (lambda bulk: bulk.cancel("state:running", reason=3), "reason=3"),
        (lambda bulk: bulk.retry("state:failed", batch=0), "batch=0"),
    ],
)
def test_an_operation_with_invalid_options_is_refused(app: Pgflow, call: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        call(app.bulk)


def test_an_unknown_key_or_option_is_refused(app: Pgflow, database: Connection) -> None:
    with pytest.raises(InvalidFilter, match="no key 'stat'"):
        app.bulk.delete("stat:failed")
    with pytest.raises(UnknownOption, match="no option 'dryrun'"):
        app.bulk.delete("state:failed", dryrun=True)  # type: ignore[call-arg]
    for document in ('{"stat": ["failed"]}', '{"not": {"input": "true"}}'):
        with pytest.raises(psycopg.Error, match="has no key"):
            database.execute("select pgflow.bulk_begin('delete', %s)", [document])
    for document in ('{"state": ["faild"]}', '{"not": {"state": ["faild"]}}'):
        for call in ("bulk_begin('delete', %s)", "matching_tasks(%s)"):
            with pytest.raises(psycopg.Error, match="has no state 'faild'"):
                database.execute(f"select pgflow.{call}".encode(), [document])
    for action, document, options in (
        ("destroy", '{"state": ["failed"]}', "{}"),
        ("delete", "{}", "{}"),
        ("move", '{"state": ["running"]}', "{}"),
        ("retry", '{"state": ["failed"]}', '{"queue": "a"}'),
    ):
        with pytest.raises(psycopg.Error) as caught:
            database.execute("select pgflow.bulk_begin(%s, %s, %s)", [action, document, options])
        assert caught.value.sqlstate == "PF008"
    assert run(database, audit.list("pgflow")) == []


def test_an_operator_may_do_all_of_it_and_a_client_nothing(parts: GrantedRoles) -> None:
    app = Pgflow(parts.admin, workflows=[Order])
    app.register()
    app.start_many(Order, [("a", {}), ("b", {})])
    operator, client = (Pgflow(parts.dsn(part)) for part in ("operator", "client"))
    assert operator.bulk.retry("workflow:Order", dry_run=True).matched == 2
    assert operator.bulk.cancel("id:a").changed == 1
    assert operator.prune(timedelta(0)) == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        client.bulk.cancel("id:b")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        client.bulk.cancel("id:b", dry_run=True)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        client.prune(timedelta(0))
    for each in (app, operator, client):
        each.close()
    with parts.connect("admin") as conn:
        conn.execute("delete from pgflow.audit")
