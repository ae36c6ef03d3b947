"""Idempotency keys in the database: a repeated call gets the answer of the first one, in any session."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step, task
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.errors import AlreadyDone, KeyReused
from pgflow.store import request
from tests.store.explorer import Explorer, Step, schedules


@step(events=("ok",))
def only(ctx: Context[Any]) -> Ok:
    return Ok("ok")


class Visit(Workflow[dict[str, Any]], unique=Unique("visit", scope="none")):
    """Any number of instances may have one business value, so only the key prevents a second one."""

    initial = only
    transitions = {only: {"ok": Done}}


class Solo(Workflow[dict[str, Any]], unique=Unique("solo")):
    """One business value, one active instance."""

    initial = only
    transitions = {only: {"ok": Done}}


@task
def mail() -> None:
    """Nothing runs it here."""


START = "select s.id from pgflow.start_many('Visit', array['v'], array['{}']) s"
COUNT = "select count(*) from pgflow.instances"


@pytest.fixture
def database(migrated: str) -> Iterator[Connection]:
    with connect(migrated) as conn:
        app = Pgflow(migrated, workflows=[Visit, Solo], tasks=[mail])
        app.register()
        app.close()
        yield conn
        for table in ("requests", "instances", "jobs"):
            conn.execute(f"delete from pgflow.{table}")  # noqa: S608 -- the names stand one line above


def value(conn: Connection, query: str, *params: object) -> Any:
    row = conn.execute(query.encode(), params).fetchone()
    return row and row[0]


def call(query: str, *params: object) -> Step:
    return lambda conn: conn.execute(query, params)


def test_sql_can_claim_a_key_and_run_once(database: Connection) -> None:
    for is_first in (True, False):
        with database.transaction():
            assert value(database, "select pgflow.once('k')") is is_first
            if is_first:
                value(database, START)
    assert value(database, COUNT) == 1
    assert len(value(database, "select pgflow.answered('k')")) == 1
    assert value(database, "select pgflow.answered('another')") is None


def test_each_call_of_a_transaction_records_its_answer(database: Connection) -> None:
    with database.transaction():
        database.execute("select pgflow.once('k')")
        started = value(database, START)
        run_id = value(database, "select max(run) from pgflow.instances")
        database.execute("select pgflow.cancel_run(%s)", [run_id])
    answers = value(database, "select pgflow.answered('k')")
    assert answers == [{"ids": [started], "runs": [run_id], "created": [True]}, None]


def test_a_rolled_back_transaction_does_not_use_up_its_key(database: Connection) -> None:
    with database.transaction(force_rollback=True):
        assert value(database, "select pgflow.once('k')")
    assert value(database, "select pgflow.once('k')")


def test_the_setting_alone_does_not_allow_changing_answers_of_another_transaction(database: Connection) -> None:
    with database.transaction():
        database.execute("select pgflow.once('k')")
        value(database, START)
    before = value(database, "select pgflow.answered('k')")
    with database.transaction():
        database.execute("select set_config('pgflow_once.key', 'k', true)")
        value(database, START)
    assert value(database, "select pgflow.answered('k')") == before


def test_a_key_belongs_to_one_call(database: Connection) -> None:
    run(database, request.begin("pgflow", "k", "start Visit v"))
    with pytest.raises(AlreadyDone):
        run(database, request.begin("pgflow", "k", "start Visit v"))
    assert run(database, request.read_answers("pgflow", "k", "start Visit v")) == []
    with pytest.raises(KeyReused, match="start Visit v"):
        run(database, request.read_answers("pgflow", "k", "cancel Visit v"))


@pytest.mark.parametrize("key", [None, "", "x" * 201])
def test_an_invalid_key_is_rejected(database: Connection, key: str | None) -> None:
    with pytest.raises(psycopg.Error, match="is not a valid idempotency key") as refusal:
        database.execute("select pgflow.once(%s)", [key])
    assert refusal.value.sqlstate == "PF008"


def test_of_two_concurrent_calls_one_starts_in_any_order(migrated: str, database: Connection) -> None:
    explorer = Explorer(migrated)
    try:
        for number, schedule in enumerate(schedules([4, 4])):
            key = f"k{number}"
            program = [
                call("begin"),
                call("select pgflow.begin_request(%s, 'start')", key),
                call(START),
                call("commit"),
            ]
            before = value(database, COUNT)
            errors = explorer.run([program, program], schedule)
            assert value(database, COUNT) == before + 1, schedule
            assert sorted(getattr(error, "sqlstate", "") for error in errors) == ["", "PF013"], schedule
            assert value(database, "select jsonb_array_length(pgflow.answered(%s))", key) == 1
    finally:
        explorer.close()


KEYED = {
    "start": "select id from pgflow.start_many('Visit', array['v'], array['{}'], key => %s, call => 'c')",
    "start_many": "select id from pgflow.start_many('Visit', '{v,w}', array['{}', '{}'], key => %s, call => 'c')",
    "enqueue": "select id from pgflow.enqueue_many('mail', array['{}'], key => %s, call => 'c')",
    "enqueue_many": "select id from pgflow.enqueue_many('mail', array['{}', '{}'], key => %s, call => 'c')",
}
BOTH = "select (select count(*) from pgflow.instances) + (select count(*) from pgflow.jobs where kind = 'task')"


@pytest.mark.parametrize("name", KEYED)
def test_a_call_that_claims_its_key_is_made_once_in_any_order(name: str, migrated: str, database: Connection) -> None:
    explorer = Explorer(migrated)
    try:
        for number, schedule in enumerate(schedules([3, 3])):
            key = f"{name}{number}"
            program = [call("begin"), call(KEYED[name], key), call("commit")]
            before = value(database, BOTH)
            errors = explorer.run([program, program], schedule)
            assert value(database, BOTH) == before + (2 if name.endswith("many") else 1), schedule
            assert sorted(getattr(error, "sqlstate", "") for error in errors) == ["", "PF013"], schedule
            assert value(database, "select jsonb_array_length(pgflow.answered(%s, 'c'))", key) == 1
    finally:
        explorer.close()


@pytest.mark.parametrize("name", KEYED)
def test_its_answer_is_recorded_as_it_was_given(name: str, database: Connection) -> None:
    given = [number for (number,) in database.execute(KEYED[name].encode(), ["k"]).fetchall()]
    (answer,) = value(database, "select pgflow.answered('k', 'c')")
    assert answer["ids"] == given
    assert answer["created"] == [True] * len(given)
    for key in ("", "x" * 201):
        with pytest.raises(psycopg.Error, match="is not a valid idempotency key") as refusal:
            database.execute(KEYED[name].encode(), [key])
        assert refusal.value.sqlstate == "PF008"


def test_a_start_that_finds_an_active_instance_records_that(database: Connection) -> None:
    start = "select run, created from pgflow.start_many('Solo', array['v'], array['{}'], key => %s, call => 'c')"
    ((run_id, created),) = database.execute(start, ["first"]).fetchall()
    assert created
    assert database.execute(start, ["second"]).fetchall() == [(run_id, False)]
    assert value(database, "select pgflow.answered('second', 'c')") == [
        {"ids": ["solo::v"], "runs": [run_id], "created": [False]}
    ]


def test_keys_are_deleted_by_age(database: Connection) -> None:
    for name, age in (("old", "25 hours"), ("older", "3 days"), ("new", "1 hour")):
        database.execute("select pgflow.once(%s)", [name])
        database.execute("update pgflow.requests set made_at = now() - %s::interval where key = %s", [age, name])
    assert run(database, request.forget("pgflow", timedelta(days=1), limit=1)) is True
    assert run(database, request.forget("pgflow", timedelta(days=1), limit=1)) is True
    assert run(database, request.forget("pgflow", timedelta(days=1), limit=1)) is False
    assert database.execute("select key from pgflow.requests").fetchall() == [("new",)]
