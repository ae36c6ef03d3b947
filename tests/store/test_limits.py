"""Stored values have limits for every writer: all that Python accepts fits, and oversized values are rejected."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step
from pgflow.core.values.names import MAX_TAGS
from pgflow.core.values.payload import (
    INPUT_LIMIT,
    MAX_EXPANSION,
    MAX_PAYLOAD_BYTES,
    METADATA_LIMIT,
    WRITTEN_LIMIT,
    encode,
)
from pgflow.database import files
from pgflow.database.connect import Connection, connect
from pgflow.database.sqlstate import translate
from pgflow.errors import InvalidPayload, InvalidValue, SchemaError
from pgflow.migrations.migrate import status, up

BOMB = "[" + ",".join(["1e131000"] * 1000) + "]"  # nine kilobytes, of which PostgreSQL writes 131 million
WORSE = "[" + ",".join(["1e131000"] * 10_000) + "]"  # more than it can write
DEEP = "[" * 65 + "]" * 65
# At Python's limit for metadata, and of characters for which PostgreSQL's text is longer.
LARGEST = {
    "text": "x" * 65_534,
    "escapes": '", : \\' * 8_000,
    "digits": [1] * 32_767,
    "small numbers": [5e-324] * 9_362,
    "less small ones": [1e-10] * 10_922,
    "keys": {str(number): number for number in range(5_000)},
    "depth": json.loads("[" * 64 + "]" * 64),
    "half": [5e-324] * 4_600,
}
CONSTRAINTS = {
    "instances_input_limit": "update pgflow.instances set input = %s::text::jsonb",
    "instances_metadata_limit": "update pgflow.instances set metadata = jsonb_build_object('a', %s::text::jsonb)",
    "step_results_output_limit": "insert into pgflow.step_results (run, step, event, attempt, started_at, output)"
    " values (1, 'a', 'b', 1, now(), %s::text::jsonb)",
    "step_results_metadata_limit": "insert into pgflow.step_results (run, step, event, attempt, started_at, metadata)"
    " values (1, 'a', 'b', 1, now(), %s::text::jsonb)",
    "jobs_config_limit": "update pgflow.jobs set config = %s::text::jsonb",
    "signals_payload_limit": "insert into pgflow.signals (run, name, payload) values (1, 'a', %s::text::jsonb)",
    "scheduled_signals_payload_limit": "insert into pgflow.scheduled_signals (run, step, name, due_at, payload)"
    " values (1, 'a', 'b', now(), %s::text::jsonb)",
}
TAGS = {
    "33 of them": [str(number) for number in range(33)],
    "one that is too long": ["x" * 65],
    "several that are": ["x" * 65, "y" * 100],
    "one of many lines": ["x\n" * 2000],
}


@step(events=("ok", "go"))
def only(ctx: Context[Any]) -> Async:
    return Async()


class Lone(Workflow[Any], unique=Unique("lone"), tags=["shop"]):
    initial = only
    transitions = {only: {"ok": Done, "go": Done}}


class Plain(Workflow[Any], unique=Unique("plain")):
    initial = only
    transitions = {only: {"ok": Done, "go": Done}}


@pytest.fixture
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Lone, Plain])
    app.register()
    yield app
    app.close()


@pytest.mark.parametrize("what", LARGEST)
def test_every_sql_function_accepts_the_values_that_python_accepts(what: str, app: Pgflow, conn: Connection) -> None:
    value = LARGEST[what]
    assert len(encode(value, what="it", limit=METADATA_LIMIT).encode()) <= METADATA_LIMIT
    value_name = what.replace(" ", "_")
    app.start(Lone, value_name, value, metadata={"half": LARGEST["half"]}, conn=conn)
    app.resume(Lone, value_name, "ok", value, conn=conn)
    app.schedule_resume(Lone, value_name, only, timedelta(hours=1), "go", value, conn=conn)
    found = app.get(Lone, value_name, conn=conn)
    assert found.unreadable is None
    assert found.input == value
    assert [each.payload for each in found.signals] == [value, value]
    plain = [value_name, json.dumps(value)]
    conn.execute("select pgflow.start('Plain', %s, %s::jsonb)", plain)
    conn.execute("select pgflow.resume('Plain', %s, 'ok', %s::jsonb)", plain)
    conn.execute("select pgflow.schedule_resume('Plain', %s, 'only', '1 h', 'go', %s::jsonb)", plain)
    conn.execute(
        "insert into pgflow.step_results (run, step, event, attempt, started_at, output, metadata)"
        " values (1, 'x', 'y', 1, now(), %s, %s)",
        [json.dumps(value), json.dumps(value)],
    )
    conn.execute("update pgflow.jobs set config = %s", [json.dumps(value)])


@pytest.mark.parametrize("limit", CONSTRAINTS)
def test_a_json_bomb_violates_the_constraint_of_its_column(limit: str, app: Pgflow, conn: Connection) -> None:
    app.start(Lone, "a", conn=conn)
    for bomb in (BOMB, json.dumps("x" * WRITTEN_LIMIT)):
        with pytest.raises(psycopg.errors.CheckViolation) as caught, conn.transaction():
            conn.execute(CONSTRAINTS[limit].encode(), [bomb])
        assert caught.value.diag.constraint_name == limit
        translated = translate(caught.value)
        assert isinstance(translated, InvalidPayload)
        column = limit.removesuffix("_limit").rpartition("_")[2]
        assert f"a value is over the limit that the database has for {column} of " in str(translated)
        assert translated.hint


@pytest.mark.parametrize("what", TAGS)
def test_too_many_or_too_long_tags_violate_the_constraint_of_their_column(
    what: str, app: Pgflow, conn: Connection
) -> None:
    app.start(Lone, "a", conn=conn)
    with pytest.raises(psycopg.errors.CheckViolation, match="instances_tags_limit"), conn.transaction():
        conn.execute("update pgflow.instances set tags = %s", [TAGS[what]])
    for fine in ([], ["x" * 64] * 32, ["ü" * 64], [str(number) for number in range(32)]):
        conn.execute("update pgflow.instances set tags = %s", [fine])


CALLS = {
    "start": "select pgflow.start('Plain', 'b', %s::text::jsonb)",
    "start_many": "select pgflow.start_many('Plain', '{b}', array[%s::text])",
    "metadata": "select pgflow.start('Plain', 'b', metadata => jsonb_build_object('a', %s::text::jsonb))",
    "resume": "select pgflow.resume('Plain', 'a', 'ok', %s::text::jsonb)",
    "resume_run": "select pgflow.resume_run(pgflow.find('Plain', 'a'), 'ok', %s::text::jsonb)",
    "schedule_resume": "select pgflow.schedule_resume('Plain', 'a', 'only', '1 h', 'ok', %s::text::jsonb)",
}


@pytest.mark.parametrize(
    ("call", "bomb", "said"),
    [
        *((call, BOMB, "limit of 65536" if call == "metadata" else "limit of 16777216") for call in CALLS),
        *((call, DEEP, "more than 64 levels deep") for call in CALLS),
        ("start", WORSE, "cannot be written out"),
    ],
)
def test_the_functions_reject_values_before_a_constraint_does(
    call: str, bomb: str, said: str, app: Pgflow, conn: Connection
) -> None:
    app.start(Plain, "a", conn=conn)
    with pytest.raises(psycopg.Error, match=said) as caught, conn.transaction():
        conn.execute(CALLS[call].encode(), [bomb])
    assert caught.value.sqlstate == "PF006"
    assert caught.value.diag.message_hint
    assert isinstance(translate(caught.value), InvalidPayload)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("select pgflow.start('Plain', 'b', metadata => '[1]')", "PF006"),
        ("select pgflow.start('Plain', 'b', metadata => '1')", "PF006"),
        ("select pgflow.start('Plain', 'b', tags => array_fill('x'::text, array[33]))", "PF008"),
        (
            "select pgflow.start('Lone', 'b', tags => array_fill('x'::text, array[32]))",
            "PF008",
        ),  # the workflow has one tag
        ("select pgflow.start('Plain', 'b', tags => array[repeat('x', 65)])", "PF008"),
        ("select pgflow.start('Plain', 'b', tags => array[''])", "PF008"),
        ("select pgflow.start('Plain', 'b', tags => array['a', null])", "PF008"),
        ("select pgflow.start('Plain', 'b', tags => array[E'a\\nb'])", "PF008"),
        ("select pgflow.start('Plain', 'b', tags => array[U&'\\0085'])", "PF008"),
    ],
)
def test_invalid_options_of_a_start_are_rejected_with_a_hint(
    call: str, code: str, app: Pgflow, conn: Connection
) -> None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(call.encode())
    assert caught.value.sqlstate == code
    assert caught.value.diag.message_hint


def test_null_metadata_and_tags_are_empty(app: Pgflow, conn: Connection) -> None:
    conn.execute("select pgflow.start('Lone', 'n', metadata => null, tags => null)")
    found = app.get(Lone, "n", conn=conn)
    assert (found.metadata, found.tags) == ({}, ("shop",))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["x" * 65], "1 to 64 characters"),
        (["a\nb"], "without control characters"),
        (["a\x85b"], "without control characters"),
        (["\ud800"], "without control characters"),
        ([""], "1 to 64 characters"),
        ([None], "1 to 64 characters"),
        ([7], "1 to 64 characters"),
        ("gift", "tags must be a list of strings"),
        (7, "tags must be a list of strings"),
        (["x"] * MAX_TAGS, "an instance can have at most 32 tags, got 32 and 1 of its workflow"),
        (["x"] * 33, "an instance can have at most 32 tags, got 33"),
    ],
)
def test_python_rejects_the_same_tags(tags: Any, said: str, app: Pgflow, conn: Connection) -> None:
    with pytest.raises(InvalidValue, match=said):
        app.start(Lone, "a", tags=tags, conn=conn)
    app.start(Lone, "fits", tags=["x" * 64] * 31, conn=conn)


def test_a_rejected_row_is_not_shown_in_a_traceback(migrated: str, app: Pgflow, conn: Connection) -> None:
    conn.execute("alter table pgflow.instances drop constraint instances_input_limit")
    limit = "alter table pgflow.instances add constraint instances_input_limit check (octet_length(input::text) < 9)"
    conn.execute(f"{limit} not valid")
    given = {"card": "-".join(["canary", "4711"])}  # joined, because a traceback shows source lines
    with pytest.raises(InvalidPayload) as caught, conn.transaction():
        app.start(Lone, "a", given, conn=conn)
    assert "canary-4711" not in "".join(traceback.format_exception(caught.value))


# -- the migrations


def test_existing_rows_are_checked_without_blocking_writers(empty: str) -> None:
    with connect(empty, "migrate") as migrating, connect(empty, "test") as writing:
        up(migrating, to=11)
        with writing.transaction():
            writing.execute(
                "insert into pgflow.instances (id, workflow, version, input) values ('a::b', 'W', 1, '{}');"
                "insert into pgflow.jobs (run, step) values (1, 'a');"
                "insert into pgflow.signals (run, name) values (1, 'a')"
            )
            assert up(migrating, to=12)[0].name == "limits_checked"
        assert migrating.execute("select count(*) from pg_constraint where not convalidated").fetchone() == (0,)
        known = migrating.execute("select conname from pg_constraint where conname like '%\\_limit'").fetchall()
    assert {name for (name,) in known} == {*CONSTRAINTS, "instances_tags_limit"}


def test_a_row_over_a_new_limit_is_reported_and_kept(empty: str) -> None:
    with connect(empty, "migrate") as conn:
        up(conn, to=7)
        conn.execute(
            "insert into pgflow.instances (id, workflow, version, input) values ('a::b', 'W', 1, '[1e131000]')"
        )
        conn.execute("update pgflow.instances set tags = array_fill('x'::text, array[40])")
        with pytest.raises(
            SchemaError, match=r"some rows of pgflow.instances violate the new constraint instances_tags_limit"
        ):
            up(conn)
        conn.execute("update pgflow.instances set tags = '{}'")
        assert next(each.name for each in up(conn)) == "limits_checked"
        assert not status(conn).pending
        assert conn.execute("select count(*) from pgflow.instances").fetchone() == (1,)


def test_python_and_sql_have_the_same_limit() -> None:
    text = "".join(Path(str(files.root())).joinpath(path).read_text() for path in files.list_files("functions"))
    assert f"pgflow.json_fault(value, {MAX_PAYLOAD_BYTES})" in text
    assert f"least({MAX_EXPANSION} * most::bigint, {WRITTEN_LIMIT})" in text
    assert f"pgflow.json_fault(metadata, {METADATA_LIMIT})" in text
    assert f"> {MAX_TAGS}" in text
    metadata, payloads = files.load("migrations/0011_limits.sql"), files.load("migrations/0016_payload_limits.sql")
    for table in ("step_results_metadata", "jobs_config"):
        assert re.search(rf"{table}_limit check .* <= {MAX_EXPANSION * METADATA_LIMIT}\)", metadata)
    assert payloads.count(f"<= {WRITTEN_LIMIT})") == 4


def test_the_largest_values_that_python_accepts_fit_the_constraints(app: Pgflow, conn: Connection) -> None:
    numbers = [5e-324] * 149_000  # PostgreSQL writes 48 megabytes
    assert len(encode(numbers, what="it", limit=INPUT_LIMIT)) > 0.99 * INPUT_LIMIT
    app.start(Lone, "numbers", numbers, conn=conn)
    conn.execute("select pgflow.start('Lone', 'text', to_jsonb(repeat('x', %s)))", [MAX_PAYLOAD_BYTES - 2])
    assert app.get(Lone, "numbers", conn=conn).input == numbers
