"""Large values are kept in a payload store: through every call and step, encrypted, and deleted with their rows."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from pgflow import Context, Done, FolderStore, Instance, Ok, Pgflow, Retry, Unique, WaitForEvent, Workflow, route, step
from pgflow.cli import cli
from pgflow.contrib.encryption import AesGcm
from pgflow.core.values.payload import REFERENCE_MARKER
from pgflow.database.connect import Connection, connect
from pgflow.errors import ConfigError, InvalidPayload, InvalidValue, PayloadUnavailable
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

LARGE = "canary-" + "x" * 3000
ABOVE = 1000
SEEN: list[Any] = []
CODEC = AesGcm({"k1": os.urandom(32)}, current="k1")
LOOP_BLOCKED = threading.Event()


@step
def grow(ctx: Context[Any]) -> Ok:
    SEEN.append(ctx.initial["rows"])
    return Ok("done", {"rows": ctx.initial["rows"] * 2})


gate = WaitForEvent("go").named("gate")


def by_size(ctx: Context[Any]) -> Any:
    SEEN.append(len(ctx.steps["grow"]["rows"]))
    return last if ctx.steps["gate"] else Done


@step
async def last(ctx: Context[Any]) -> Ok:
    SEEN.append(ctx.steps["gate"])
    return Ok("done", [len(ctx.steps["grow"]["rows"]), len(ctx.steps["gate"]["note"])])


class Import(Workflow[Any], unique=Unique("file")):
    """A large input, output and payload; a route and a later step read them."""

    initial = grow
    transitions = {
        grow: {"done": gate},
        gate: {"received": route(by_size, last, Done)},
        last: {"done": Done},
    }


@step(retry=Retry(max_attempts=3, base=timedelta(milliseconds=10)), transactional=True)
def book(ctx: Context[Any]) -> Ok:
    return Ok("done", ctx.initial)


@step
def left(ctx: Context[Any]) -> Ok:
    return Ok("done", LARGE)


@step
def right(ctx: Context[Any]) -> Ok:
    return Ok("done", LARGE)


@step
def join(ctx: Context[Any]) -> Ok:
    return Ok("done", sum(len(ctx.steps[each]) for each in ("left", "right")))


class Fork(Workflow[Any], unique=Unique("fork")):
    """Parallel steps with large outputs, after a transactional one."""

    initial = book
    transitions = {
        book: {"done": [left, right]},
        left: {"done": join},
        right: {"done": join},
        join: {"done": Done},
    }


WORKFLOWS = (Import, Fork)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    SEEN.clear()
    return FolderStore(tmp_path)


@pytest.fixture(params=["plain", "encrypted"])
def app(request: pytest.FixtureRequest, dsn: str, conn: Connection, store: FolderStore) -> Iterator[Pgflow]:
    codec = CODEC if request.param == "encrypted" else None
    app = Pgflow(dsn, workflows=WORKFLOWS, payload_store=store, store_above=ABOVE, codec=codec)
    yield app
    app.close()


def objects(store: FolderStore) -> list[Path]:
    return [path for path in store.path.rglob("*") if path.is_file()]


def references(conn: Connection) -> int:
    """Return how many values in the database are references."""
    query = f"""
    select (select count(*) from pgflow.instances where input ? '{REFERENCE_MARKER}')
        + (select count(*) from pgflow.step_results where output ? '{REFERENCE_MARKER}')
        + (select count(*) from pgflow.signals where payload ? '{REFERENCE_MARKER}')
        + (select count(*) from pgflow.scheduled_signals where payload ? '{REFERENCE_MARKER}')
    """  # noqa: S608 -- a constant
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def finished(app: Pgflow, workflow: type[Workflow[Any]], value: str) -> Instance:
    until(lambda: not app.get(workflow, value).is_active, "the end of the instance")
    return app.get(workflow, value)


@pytest.mark.parametrize("is_early", [False, True], ids=["signal after the wait", "signal before the wait"])
def test_large_values_pass_through_calls_steps_routes_and_signals(
    is_early: bool, app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start(Import, "a", {"rows": LARGE})
    if is_early:
        app.resume(Import, "a", "go", {"note": LARGE})
    with Inside(app):
        if not is_early:
            until(lambda: app.get(Import, "a").waiting_for, "the wait")
            app.resume(Import, "a", "go", {"note": LARGE})
        done = finished(app, Import, "a")
    assert done.unreadable is None
    assert done.error is None
    assert done.input == {"rows": LARGE}
    assert done.steps == {"grow": {"rows": LARGE * 2}, "gate": {"note": LARGE}, "last": [len(LARGE) * 2, len(LARGE)]}
    assert [LARGE, 2 * len(LARGE), {"note": LARGE}] == SEEN
    assert references(conn) == len(objects(store)) == 4  # the payload stays in the mailbox, and is an output
    assert any(b"canary" in path.read_bytes() for path in objects(store)) is (app.codec is None)
    assert conn.execute("select max(pg_column_size(input)) < 600 from pgflow.instances").fetchone() == (True,)


def test_parallel_and_transactional_steps_store_large_outputs(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start_many(Fork, [(str(number), LARGE) for number in range(5)])
    with Inside(app):
        for number in range(5):
            done = finished(app, Fork, str(number))
            assert (done.error, done.steps["join"]) == (None, 2 * len(LARGE))
    assert references(conn) == len(objects(store)) == 5 * 4


def test_every_way_to_read_resolves_references_sync_and_async(app: Pgflow, store: FolderStore) -> None:
    app.start(Import, "a", {"rows": LARGE})
    app.resume(Import, "a", "go", {"note": LARGE})

    async def read() -> list[Instance]:
        return [await app.aget(Import, "a"), *await app.alist(Import), await app.storage.aget("file::a")]

    found = [app.get(Import, "a"), *app.list(Import), *app.storage.query(), *asyncio.run(read())]
    for each in found:
        assert (each.input, each.unreadable) == ({"rows": LARGE}, None)
    assert found[0].signals[0].payload == {"note": LARGE}
    asyncio.run(app.astart(Import, "b", {"rows": LARGE}))
    assert app.get(Import, "b").input == {"rows": LARGE}
    assert len(objects(store)) == 3


def test_put_stores_large_values_and_releases_those_that_it_replaces(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start(Import, "a", {"rows": LARGE})
    before, (replaced,) = app.storage.get("file::a"), objects(store)
    app.storage.put(replace(before, input={"rows": LARGE + "!"}))
    assert app.get(Import, "a").input == {"rows": LARGE + "!"}
    with Inside(app):
        until(lambda: not replaced.exists(), "the replaced object is gone")
        until(lambda: app.get(Import, "a").steps, "the first step")
    assert app.get(Import, "a").steps == {"grow": {"rows": (LARGE + "!") * 2}}


@pytest.mark.parametrize("how", ["delete", "prune"])
def test_the_objects_go_with_the_rows(how: str, app: Pgflow, conn: Connection, store: FolderStore) -> None:
    app.start_many(Fork, [("a", LARGE), ("b", LARGE)])
    with Inside(app):
        finished(app, Fork, "a")
        finished(app, Fork, "b")
    if how == "delete":
        app.storage.delete("fork::a")
    else:
        conn.execute("update pgflow.instances set finished_at = finished_at - interval '9 days' where id = 'fork::a'")
        assert CliRunner().invoke(cli, ["prune", "--older-than", "7d", "--dsn", app.dsn]).output == "deleted 1\n"
    assert len(objects(store)) == 8  # deleted by a worker, because the command has no store
    with Inside(app):
        until(lambda: len(objects(store)) == 4, "the objects are gone")
        until(lambda: conn.execute("select count(*) from pgflow.stale_payloads").fetchone() == (0,), "the rows, too")
    assert app.get(Fork, "b").input == LARGE


def test_a_transaction_that_is_rolled_back_leaves_an_object_that_a_sweep_deletes(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start(Import, "kept", {"rows": LARGE})
    app.resume(Import, "kept", "go", {"note": LARGE})
    app.schedule_resume(Import, "kept", gate, timedelta(hours=9), "go", {"note": LARGE})
    with connect(app.dsn, "test") as ours, ours.transaction(force_rollback=True):
        app.start(Import, "gone", {"rows": LARGE}, conn=ours)
    assert len(objects(store)) == 4
    assert app.sweep_payloads(timedelta(hours=1)) == 0  # younger than that
    age(store)
    assert asyncio.run(app.asweep_payloads(timedelta(hours=1))) == 1
    assert app.get(Import, "kept").input == {"rows": LARGE}
    assert len(objects(store)) == 3


def age(store: FolderStore) -> None:
    """Make every object two days old."""
    past = time.time() - 2 * 86_400
    for path in objects(store):
        os.utime(path, (past, past))


def test_a_sweep_is_refused_without_a_store_and_for_a_short_age(app: Pgflow, dsn: str) -> None:
    with pytest.raises(InvalidValue, match="older_than must be a timedelta of at least an hour"):
        app.sweep_payloads(timedelta(minutes=5))
    other = Pgflow(dsn, workflows=[Import], name="no store")
    with pytest.raises(ConfigError, match="this app has no payload store"):
        other.sweep_payloads()
    other.close()


# -- what can go wrong


def test_a_missing_object_is_retried_then_fails_the_instance_and_can_be_repaired(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start(Fork, "a", LARGE)
    (path,) = objects(store)
    path.rename(store.path / "aside")
    read = app.get(Fork, "a")
    assert read.unreadable is not None
    assert "the input is missing in the payload store FolderStore" in read.unreadable
    with Inside(app):
        failed = finished(app, Fork, "a")
        assert failed.error is not None
        assert (failed.error["type"], failed.error["attempt"]) == ("PayloadUnavailable", 3)
        (store.path / "aside").rename(path)
        app.retry(Fork, "a")
        assert finished(app, Fork, "a").status == "completed"


def test_a_changed_object_fails_the_instance_at_once(app: Pgflow, store: FolderStore) -> None:
    app.start(Fork, "a", LARGE)
    (path,) = objects(store)
    path.write_bytes(path.read_bytes()[:-1])
    with Inside(app):
        failed = finished(app, Fork, "a")
    assert failed.error is not None
    assert (failed.error["type"], failed.error["attempt"]) == ("InvalidPayload", 1)
    assert "was changed" in failed.error["reason"]


def test_an_app_without_the_store_leaves_the_job_to_one_that_has_it(
    app: Pgflow, dsn: str, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    other = Pgflow(dsn, workflows=WORKFLOWS, codec=app.codec, name="no store")
    app.start(Fork, "a", LARGE)
    assert "this app has none" in (other.get(Fork, "a").unreadable or "")
    with Inside(other):
        until(lambda: "is left to another worker" in caplog.text, "the job is passed on")
    assert app.get(Fork, "a").is_active
    with pytest.raises(InvalidValue, match="could not be read completely"):
        other.storage.put(other.storage.get("fork::a"))
    other.close()


def test_a_reference_that_a_client_makes_up_reads_nothing_and_deletes_nothing(
    app: Pgflow, conn: Connection, store: FolderStore
) -> None:
    app.start(Import, "victim", {"rows": LARGE})
    app.register()
    conn.execute("select pgflow.start('Import', 'thief', (select input from pgflow.instances))")
    with Inside(app):
        failed = finished(app, Import, "thief")
        assert failed.error is not None
        assert "was made for another place" in failed.error["reason"]
    app.storage.delete("file::thief")
    with Inside(app):
        until(lambda: conn.execute("select count(*) from pgflow.stale_payloads").fetchone() == (0,), "the clean-up")
    assert app.get(Import, "victim").input == {"rows": LARGE}
    with pytest.raises(InvalidPayload, match="reserved for pgflow"):
        app.start(Import, "b", {REFERENCE_MARKER: {"key": "0" * 32 + "-" + "0" * 32, "size": 1, "sha256": ""}})


class Hanging(FolderStore):
    """A store whose reads hang until they are let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_read = threading.Event()
        self.readers = 0

    def get(self, key: str) -> bytes:
        self.readers += 1
        self.may_read.wait(60)
        return super().get(key)


class Refusing(FolderStore):
    """A store that is full."""

    def put(self, key: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_a_store_that_hangs_does_not_stop_the_worker(dsn: str, conn: Connection, tmp_path: Path) -> None:
    hanging = Hanging(tmp_path)
    app = Pgflow(dsn, workflows=WORKFLOWS, payload_store=hanging, store_above=ABOVE)
    app.start(Import, "large", {"rows": LARGE})
    with Inside(app):
        until(lambda: hanging.readers, "the step waits for the store")
        app.start(Fork, "small", 1)
        until(lambda: conn.execute("select 1 from pgflow.step_results where step = 'book'").fetchone(), "other steps")
        hanging.may_read.set()
        until(lambda: SEEN[-1:] == [LARGE], "the step")
    app.close()


def test_a_store_that_is_full_refuses_the_call_and_stores_nothing(dsn: str, conn: Connection, tmp_path: Path) -> None:
    app = Pgflow(dsn, workflows=WORKFLOWS, payload_store=Refusing(tmp_path), store_above=ABOVE)
    with pytest.raises(PayloadUnavailable, match=r"Refusing cannot store an object of .* bytes: OSError"):
        app.start(Import, "a", {"rows": LARGE})
    assert conn.execute("select count(*) from pgflow.instances").fetchone() == (0,)
    app.start(Import, "a", {"rows": "x" * 600})
    with Inside(app):
        failed = finished(app, Import, "a")  # its output is too large for the row
    assert failed.error is not None
    assert failed.error["type"] == "PayloadUnavailable"
    app.close()


# -- the limit of an app


def test_the_limit_of_an_app_applies_to_inputs_payloads_and_outputs(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=WORKFLOWS, max_payload_bytes=2000)
    for call in (
        lambda: app.start(Import, "a", {"rows": LARGE}),
        lambda: app.start_many(Import, [("b", {"rows": LARGE})]),
        lambda: app.storage.put(Instance.new(Import, 1, {"rows": LARGE}, "file::c")),
    ):
        with pytest.raises(InvalidPayload, match="more than the 2,000 allowed: raise max_payload_bytes of the app"):
            call()
    app.start(Import, "d", {"rows": "x" * 1500})
    with pytest.raises(InvalidPayload, match="more than the 2,000 allowed"):
        app.resume(Import, "d", "go", {"note": LARGE})
    with Inside(app):
        failed = finished(app, Import, "d")
    assert failed.error is not None
    assert "grow.output is 3,011 bytes of JSON, more than the 2,000 allowed" in failed.error["reason"]
    app.close()


def test_a_value_of_many_mebibytes_passes_through_the_database(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=WORKFLOWS, max_payload_bytes=16 * 1024 * 1024)
    rows = "x" * 3_000_000
    app.start(Import, "a", {"rows": rows})
    app.resume(Import, "a", "go", {"note": rows})
    with Inside(app, lease=timedelta(seconds=30)):  # encoding it holds Python's global lock
        assert finished(app, Import, "a").steps["last"] == [2 * len(rows), len(rows)]
    app.close()


def test_sql_accepts_the_hard_cap_and_a_worker_takes_it(dsn: str, conn: Connection) -> None:
    app = Pgflow(dsn, workflows=WORKFLOWS)
    app.register()
    conn.execute("select pgflow.start('Fork', 'a', to_jsonb(repeat('x', 16777214)))")
    with pytest.raises(psycopg.Error, match="an input of 16777217 bytes is over the limit of 16777216"):
        conn.execute("select pgflow.start('Fork', 'b', to_jsonb(repeat('x', 16777215)))")
    assert len(app.get(Fork, "a").input) == 16_777_214
    app.close()
