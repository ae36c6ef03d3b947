"""Workers delete what ended long ago, pass it to the archive before, and never touch what is active."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Retain, Unique, Workflow, step, task
from pgflow.database.connect import Connection
from pgflow.worker.chores import prune
from tests.worker.conftest import Work
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until


@step(events=("ok",))
def visit(ctx: Context[dict[str, Any]]) -> Ok | Async:
    return Async() if ctx.initial.get("waits") else Ok("ok", {"n": 1})


class Pruned(Workflow[dict[str, Any]], unique=Unique("pruned"), retain=Retain(completed=timedelta(0))):
    initial = visit
    transitions = {visit: {"ok": Done}}


class Kept(Workflow[dict[str, Any]], unique=Unique("kept")):
    initial = visit
    transitions = {visit: {"ok": Done}}


@task(retain=Retain(completed=timedelta(0)))
def note(n: int) -> int:
    return n


WORKFLOWS = [Pruned, Kept]


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(prune, "POLL_SECONDS", 0.05)


@pytest.fixture
def ended(app: Pgflow, conn: Connection) -> None:
    """Instances that ended long ago, and one that has been active for as long."""
    with Inside(app, retention=None):
        app.start_many(Kept, [(f"old-{number}", {}) for number in range(3)])
        app.start(Kept, "new", {})
        app.start(Kept, "active", {"waits": True})
        until(lambda: len(app.find("state:completed")) == 4, "the ends")
    conn.execute("update pgflow.instances set created_at = now() - interval '1 year' where id <> 'kept::new'")
    conn.execute("update pgflow.instances set finished_at = now() - interval '8 days' where id like 'kept::old%'")


def ids(app: Pgflow) -> set[str]:
    return {each.id for each in app.find("")}


def test_a_worker_deletes_by_default_what_ended_long_ago_and_logs_that(
    app: Pgflow, work: Work, ended: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pgflow.worker"):
        work()
        work()  # several at once
        app.start(Pruned, "now", {})
        until(lambda: ids(app) == {"kept::new", "kept::active"}, "the pruning")
    assert app.get(Kept, "active").is_active
    said = [each.message for each in caplog.records if "deletes ended instances" in each.message]
    assert len(said) == 2
    assert "completed after 7 days, failed and cancelled after 30 days" in said[0]
    assert "Pgflow(retention=None)" in said[0]


def test_with_the_retention_switched_off_nothing_is_deleted(app: Pgflow, work: Work, ended: None) -> None:
    before = ids(app)
    inside = work(retention=None)
    app.start(Pruned, "now", {})
    until(lambda: app.get(Pruned, "now").status == "completed", "the end")
    turns = inside.worker.stats.round_trips
    until(lambda: inside.worker.stats.round_trips > turns + 5, "some more turns")
    assert ids(app) == before | {"pruned::now"}


def test_a_batch_is_archived_before_it_is_deleted(app: Pgflow, conn: Connection, ended: None) -> None:
    archived: list[Instance] = []
    stored: list[set[str]] = []

    async def archive(rows: Sequence[Instance]) -> None:
        if not archived:
            archived.extend(rows)
            raise OSError("the disk is full")  # the batch is kept, and given again
        archived.extend(rows)
        found = conn.execute("select id from pgflow.instances").fetchall()
        stored.append({row[0] for row in found})

    with Inside(app, on_prune=archive):
        until(lambda: ids(app) == {"kept::new", "kept::active"}, "the pruning")
    assert len(archived) == 6
    assert {each.id for each in archived} == {f"kept::old-{number}" for number in range(3)}
    assert archived[0].output(visit) == {"n": 1}
    assert stored[0] >= {each.id for each in archived}


def test_tasks_are_archived_and_deleted_as_their_task_declares(dsn: str, conn: Connection) -> None:
    archived: list[Any] = []

    async def archive(rows: Sequence[Any]) -> None:
        archived.extend(rows)

    with_archive = Pgflow(dsn, workflows=WORKFLOWS, tasks=[note], on_prune=archive)
    with_archive.register()
    with Inside(with_archive):
        first = note.enqueue(1).id
        until(lambda: archived and not with_archive.find_tasks(""), "the pruning")
    assert {(each.id, each.task, each.output) for each in archived} == {(first, "note", 1)}
    with_archive.close()
    without = Pgflow(dsn, workflows=WORKFLOWS, tasks=[note])
    with Inside(without):
        note.enqueue(2)
        until(lambda: not without.find_tasks(""), "the pruning")
    without.close()


def test_what_the_archive_was_given_and_has_changed_since_is_kept(app: Pgflow, conn: Connection, ended: None) -> None:
    async def archive(rows: Sequence[Instance]) -> None:
        change = "update pgflow.instances set revision = revision + 1, finished_at = now() where id = 'kept::old-1'"
        conn.execute(change.encode())

    with Inside(app, on_prune=archive):
        until(lambda: ids(app) == {"kept::new", "kept::active", "kept::old-1"}, "the pruning")


def test_a_foreign_key_of_the_user_stops_the_pruning_and_nothing_else(
    app: Pgflow, conn: Connection, ended: None, work: Work
) -> None:
    conn.execute("create table mine (run bigint references pgflow.instances (run))")
    try:
        conn.execute("insert into mine select run from pgflow.instances where id = 'kept::old-0'")
        work()
        for number in range(5):
            app.start(Kept, f"go-{number}", {})
            until(lambda number=number: app.get(Kept, f"go-{number}").status == "completed", "the end")  # type: ignore[misc]
        assert "kept::old-0" in ids(app)
        conn.execute("delete from mine")
        until(lambda: "kept::old-0" not in ids(app), "the pruning")
    finally:
        conn.execute("drop table mine")
