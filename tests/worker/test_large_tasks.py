"""Large arguments and outputs of tasks are kept in the payload store, encrypted, and go with their rows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pgflow import (
    Ended,
    FolderStore,
    Instance,
    Pgflow,
    Retain,
    Retry,
    TaskContext,
    TaskInstance,
    UniqueTask,
    task,
)
from pgflow.contrib.encryption import AesGcm
from pgflow.core.values.payload import REFERENCE_MARKER
from pgflow.database.connect import Connection
from pgflow.errors import TaskFailed
from pgflow.worker.chores import prune
from tests.worker.test_payload_store import age, objects
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

LARGE = "canary-" + "x" * 3000
ABOVE = 1000
SEEN: list[Ended] = []
BROKEN: set[str] = set()


@task
def double(rows: str) -> str:
    return rows * 2


@task(retry=Retry(max_attempts=1), partition_by="tenant", weight=3)
def keyed(ctx: TaskContext, tenant: str, rows: str = "") -> list[Any]:
    kept = ctx.checkpointed
    ctx.checkpoint({"page": 1})
    if tenant in BROKEN:
        raise OSError("no")
    return [kept, len(rows)]


@task(transactional=True)
def booked(rows: str) -> str:
    return rows


@task(unique=UniqueTask("none", on_conflict="replace", replace=["args"]))
def latest(rows: str) -> str:
    return rows


@task
def note(end: Ended) -> None:
    SEEN.append(end)


@task(on_success=note, on_cancel=note)
def hooked(rows: str) -> int:
    return len(rows)


TASKS = (double, keyed, booked, latest, note, hooked)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    SEEN.clear()
    BROKEN.clear()
    return FolderStore(tmp_path)


@pytest.fixture(params=["plain", "strict"])
def app(request: pytest.FixtureRequest, dsn: str, conn: Connection, store: FolderStore) -> Iterator[Pgflow]:
    codec = AesGcm({"k1": os.urandom(32)}, current="k1", strict=True) if request.param == "strict" else None
    app = Pgflow(dsn, tasks=TASKS, payload_store=store, store_above=ABOVE, codec=codec)
    app.register()
    yield app
    app.close()


def references(conn: Connection) -> int:
    """Return how many values of tasks are references."""
    row = conn.execute(
        f"""select (select count(*) from pgflow.jobs where args ? '{REFERENCE_MARKER}')
            + (select count(*) from pgflow.task_results where args ? '{REFERENCE_MARKER}')
            + (select count(*) from pgflow.task_results where output ? '{REFERENCE_MARKER}')""".encode()  # noqa: S608 -- a constant
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_large_arguments_and_outputs_pass_through_and_every_reader_sees_them(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    waits = app.enqueue(double, {"rows": LARGE}, delay=timedelta(hours=1))
    one, two = app.enqueue(double, {"rows": LARGE}), app.enqueue(booked, {"rows": LARGE})
    assert (references(conn), len(objects(store))) == (3, 3)
    with Inside(app):
        assert one.result(60) == LARGE * 2
        assert asyncio.run(two.aresult(60)) == LARGE
    assert (references(conn), len(objects(store))) == (5, 5)
    assert any(b"canary" in path.read_bytes() for path in objects(store)) is (app.codec is None)
    listed = {each.id: each for each in app.list_tasks()}
    assert [dict(listed[each.id].args) for each in (waits, one, two)] == [{"rows": LARGE}] * 3
    assert (listed[one.id].output, one.get().output, listed[one.id].unreadable) == (LARGE * 2, LARGE * 2, None)
    row = conn.execute("select max(pg_column_size(r)) from pgflow.task_results r").fetchone()
    assert row is not None
    assert row[0] < 2000


def test_the_limit_is_that_of_the_app(dsn: str, conn: Connection, store: FolderStore) -> None:
    app = Pgflow(dsn, tasks=TASKS, payload_store=store, max_payload_bytes=20_000_000)
    assert len(app.enqueue(double, {"rows": "x" * 17_000_000}).get().args["rows"]) == 17_000_000  # above 16 MiB
    app.close()


@pytest.mark.parametrize("how", ["delete", "bulk", "prune", "archive"])
def test_the_objects_go_with_the_rows(
    how: str, app: Pgflow, conn: Connection, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "INTERVAL_SECONDS", 0.1)
    archived: list[Any] = []

    async def archive(rows: Sequence[Instance | TaskInstance]) -> None:
        archived.extend(each.output for each in rows if isinstance(each, TaskInstance))

    gone, kept = app.enqueue_many(double, [{"rows": LARGE}, {"rows": LARGE}])
    with Inside(app):
        assert [gone.result(60), kept.result(60)] == [LARGE * 2] * 2
    conn.execute(
        "update pgflow.task_results set finished_at = finished_at - interval '9 days' where id = %s", [gone.id]
    )
    match how:
        case "delete":
            conn.execute("select pgflow.delete_task(%s)", [gone.id])
        case "bulk":
            assert app.bulk.delete(f"task:double id:{gone.id}").changed == 1
        case "prune":
            assert app.prune(timedelta(days=7)) == 1
    assert len(objects(store)) == 4  # a worker deletes them
    if how == "archive":
        with Inside(app, retention=Retain(completed=timedelta(days=7)), on_prune=archive):
            until(lambda: conn.execute("select count(*) from pgflow.stale_payloads").fetchone() == (2,), "the deletion")
    with Inside(app, retention=None):
        until(lambda: len(objects(store)) == 2, "the objects are gone")
    assert set(archived) == ({LARGE * 2} if how == "archive" else set())  # it gets each at least once
    assert kept.get().output == LARGE * 2


def test_a_sweep_keeps_what_tasks_refer_to(app: Pgflow, store: FolderStore) -> None:
    app.enqueue(double, {"rows": LARGE}, delay=timedelta(hours=1))
    ended = app.enqueue(double, {"rows": LARGE})
    with Inside(app):
        ended.result(60)
    store.put("0" * 32 + "-" + "1" * 32, b"of no row")
    age(store)
    assert app.sweep_payloads(timedelta(hours=1)) == 1
    assert ended.get().output == LARGE * 2
    assert len(objects(store)) == 3


def test_arguments_that_are_replaced_are_deleted(app: Pgflow, conn: Connection, store: FolderStore) -> None:
    job = app.enqueue(latest, {"rows": LARGE}, delay=timedelta(hours=1))
    assert app.enqueue(latest, {"rows": LARGE + "!"}, delay=timedelta(hours=1)) == job
    assert job.get().args == {"rows": LARGE + "!"}
    with Inside(app):
        until(lambda: len(objects(store)) == 1, "the first object is gone")


@pytest.mark.parametrize("how", ["one", "bulk", "cancelled"])
def test_a_retry_keeps_the_partition_key_the_places_and_the_checkpoint(how: str, app: Pgflow, conn: Connection) -> None:
    BROKEN.add("acme")
    job = app.enqueue(keyed, {"tenant": "acme", "rows": LARGE})
    with Inside(app):
        with pytest.raises(TaskFailed):
            job.result(60)
        if how == "cancelled":
            job.retry()
            until(lambda: job.get().status == "failed", "the second failure")
    if how == "bulk":
        assert app.bulk.retry("state:failed task:keyed").changed == 1
    else:
        job.retry()
    if how == "cancelled":
        job.cancel()
        job.retry()
    found = conn.execute("select key, cost, checkpoint is not null from pgflow.jobs where id = %s", [job.id]).fetchone()
    assert found == ("acme", 3, True)
    BROKEN.clear()
    with Inside(app):
        assert job.result(60) == [{"page": 1}, len(LARGE)]


def test_the_argument_of_a_hook_is_accepted_in_plain_by_a_strict_codec(app: Pgflow, conn: Connection) -> None:
    job, other = app.enqueue(hooked, {"rows": LARGE}), app.enqueue(hooked, {"rows": "x"}, delay=timedelta(hours=1))
    other.cancel(reason="no")
    with Inside(app):
        assert job.result(60) == len(LARGE)
        until(lambda: len(SEEN) == 2, "both hooks")
        assert {(end.job, end.status) for end in SEEN} == {(job.id, "completed"), (other.id, "cancelled")}
        assert all(each.unreadable is None for each in app.list_tasks(note))
        if app.codec is None:
            return
        forged = conn.execute("""select pgflow.enqueue('double', '{"rows": "x"}')""").fetchone()
        assert forged is not None
        with pytest.raises(TaskFailed, match="is not encrypted, and the codec is strict"):
            app.job(forged[0], double).result(60)
