"""Retention: what has ended too long ago is found by an index, per workflow and status, and by count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Async, Context, Done, Pgflow, Retain, Unique, Workflow, step
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import DefinitionError, InvalidValue
from pgflow.migrations.migrate import up
from pgflow.store import retention
from pgflow.store.retention import Ages
from tests.conftest import Server

WEEK = Ages(completed=timedelta(days=7), failed=timedelta(days=30), cancelled=timedelta(days=30), overrides=True)
TABLES = ("instances", "step_results", "jobs", "signals", "workers")


@step(events=("ok",))
def only(ctx: Context[Any]) -> Async:
    return Async()


class Plain(Workflow[dict[str, Any]], unique=Unique("plain")):
    initial = only
    transitions = {only: {"ok": Done}}


class Kept(
    Workflow[dict[str, Any]], unique=Unique("kept"), retain=Retain(completed=timedelta.max, failed=timedelta(days=90))
):
    initial = only
    transitions = {only: {"ok": Done}}


class Few(Workflow[dict[str, Any]], unique=Unique("few", scope="none"), retain=Retain(max_count=2)):
    initial = only
    transitions = {only: {"ok": Done}}


class Versioned(Workflow[dict[str, Any]], unique=Unique("versioned"), current=1, retain=Retain(completed=timedelta(0))):
    class V1(Workflow[dict[str, Any]], version=1):
        initial = only
        transitions = {only: {"ok": Done}}

    versions = {1: V1}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Plain, Kept, Few, Versioned])
    app.register()
    yield app
    app.close()


@pytest.fixture
def database(migrated: str, app: Pgflow) -> Iterator[Connection]:
    with connect(migrated, "worker") as conn:
        yield conn
        for table in TABLES:
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above


def ended(conn: Connection, app: Pgflow, workflow: type[Workflow[Any]], value: str, status: str, days: float) -> int:
    """Store an instance that ended so long ago; returns its run."""
    number = app.start(workflow, value, {}).run
    conn.execute(
        "update pgflow.instances set status = %s, finished_at = now() - %s, revision = revision + 1 where run = %s",
        [status, timedelta(days=days), number],
    )
    conn.execute("delete from pgflow.jobs where run = %s", [number])
    return number


def pruned(conn: Connection, ages: Ages = WEEK) -> list[int]:
    """Prune until nothing is left to prune, two at a time; returns the runs that are gone."""
    before = {row[0] for row in conn.execute("select run from pgflow.instances").fetchall()}
    while run(conn, retention.prune("pgflow", ages, limit=2)).last is not None:
        pass
    return sorted(before - {row[0] for row in conn.execute("select run from pgflow.instances").fetchall()})


def test_each_status_has_its_age(app: Pgflow, database: Connection) -> None:
    gone = [
        ended(database, app, Plain, "a", "completed", 8),
        ended(database, app, Plain, "b", "failed", 31),
        ended(database, app, Plain, "c", "cancelled", 31),
        ended(database, app, Versioned, "v", "completed", 0.001),
    ]
    for value, status, days in (("d", "completed", 6), ("e", "failed", 29), ("f", "cancelled", 8)):
        ended(database, app, Plain, value, status, days)
    app.start(Plain, "g", {})
    database.execute("update pgflow.instances set created_at = now() - interval '10 years' where id = 'plain::g'")
    assert pruned(database) == gone


def test_a_workflow_overrides_the_ages_unless_they_are_forced(app: Pgflow, database: Connection) -> None:
    old = ended(database, app, Kept, "a", "failed", 91)
    kept = [ended(database, app, Kept, "b", "failed", 89), ended(database, app, Kept, "c", "completed", 9999)]
    assert pruned(database) == [old]
    assert pruned(database, Ages(completed=timedelta(0), failed=timedelta(0))) == kept


def test_a_count_keeps_exactly_the_newest_also_of_those_that_ended_together(app: Pgflow, database: Connection) -> None:
    runs = [ended(database, app, Few, "x", status, 1) for status in ("completed", "failed", "cancelled", "completed")]
    active = app.start(Few, "x", {}).run
    database.execute(
        "update pgflow.instances set finished_at = now() - interval '1 hour' where finished_at is not null"
    )
    assert pruned(database) == runs[:2]
    assert pruned(database, Ages(max_count=0)) == runs[2:]
    assert database.execute("select run from pgflow.instances").fetchall() == [(active,)]


def test_what_was_archived_is_deleted_unless_it_has_changed(app: Pgflow, database: Connection) -> None:
    ended(database, app, Plain, "a", "failed", 31)
    ended(database, app, Plain, "b", "failed", 31)
    batch = run(database, retention.read_expired("pgflow", WEEK))
    assert sorted(each.instance.id for each in batch) == ["plain::a", "plain::b"]
    app.retry(Plain, "a")
    app.cancel(Plain, "a")
    assert run(database, retention.delete_archived("pgflow", batch)) == 1
    assert [each.id for each in app.list()] == ["plain::a"]
    assert run(database, retention.read_expired("pgflow", WEEK)) == []


def test_locked_instances_are_skipped_by_the_second_of_two_workers(
    app: Pgflow, database: Connection, migrated: str
) -> None:
    for value in ("a", "b"):
        ended(database, app, Plain, value, "completed", 8)
    with connect(migrated, "worker") as other, other.transaction():
        assert run(other, retention.prune("pgflow", WEEK, limit=1)).deleted == 1
        assert run(database, retention.prune("pgflow", WEEK)).deleted == 1
    assert app.list() == []


def test_a_retention_that_cannot_be_is_refused_at_definition(migrated: str) -> None:
    with pytest.raises(InvalidValue, match="completed must be a timedelta from zero"):
        Retain(completed=timedelta(days=-1))
    with pytest.raises(InvalidValue, match="max_count must be a whole number from 0"):
        Retain(max_count=-1)
    with pytest.raises(DefinitionError, match=r"retain is 7: write retain=Retain"):

        class Wrong(Workflow[dict[str, Any]], unique=Unique("w"), retain=7):  # type: ignore[arg-type]
            initial = only
            transitions = {only: {"ok": Done}}

    with pytest.raises(InvalidValue, match="retention must be a Retain or None"):
        Pgflow(migrated, retention=timedelta(days=7))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="on_prune must be an async function"):
        Pgflow(migrated, on_prune=print)  # type: ignore[arg-type]


@pytest.fixture(params=["empty", "full"])
def early(request: pytest.FixtureRequest, server: Server, new_database: Callable[..., str]) -> Iterator[Connection]:
    """A worker's connection that has pruned before: an empty table, or a full one; then both are full."""
    dsn = new_database(server)
    fill = """
        insert into pgflow.definitions (workflow, version, hash, graph)
        select 'W' || g, 1, '', '{}' from generate_series(1, 5) g;
        insert into pgflow.instances (id, workflow, version, input, status, finished_at)
        select
            'k::' || g, 'W' || g % 5 + 1, 1, '{}', case g % 3 when 0 then 'failed' else 'completed' end,
            now() - interval '1 day'
        from generate_series(1, 20000) g;
        insert into pgflow.step_results (run, step, event, attempt, started_at)
        select g, 'a', 'ok', 1, now() from generate_series(1, 20000) g;
    """
    with connect(dsn, "migrate") as conn:
        up(conn)
        conn.execute("alter table pgflow.instances set (autovacuum_enabled = off)")
        conn.execute("alter table pgflow.step_results set (autovacuum_enabled = off)")
        if request.param == "full":
            conn.execute(fill.encode())
            conn.execute("vacuum analyze")
        with connect(dsn, "worker") as worker:
            for _ in range(6):
                run(worker, retention.prune("pgflow", WEEK))
            if request.param == "empty":
                conn.execute(fill.encode())
            yield worker


def test_it_reads_what_it_deletes_and_little_else(early: Connection) -> None:
    read = """select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), sum(seq_scan)
        from pg_stat_xact_user_tables
        where schemaname = 'pgflow' and relname in ('instances', 'step_results')"""
    with early.transaction():
        ((before, scans),) = early.execute(read).fetchall()
        assert run(early, retention.prune("pgflow", WEEK)).deleted == 0
        ((after, scans_after),) = early.execute(read).fetchall()
        assert (after - before, scans_after - scans) == (0, 0)
        assert run(early, retention.prune("pgflow", Ages(completed=timedelta(0)), limit=100)).deleted == 100
        ((last, _),) = early.execute(read).fetchall()
        assert last - after <= 100 * 8
