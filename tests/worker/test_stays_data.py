"""Rows that name code, or look like what others make objects of, stay data: nothing is run, imported or believed."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from pgflow import Async, Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.cli import cli
from pgflow.database.connect import Connection
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until


@step
def first(ctx: Context[Any]) -> Ok:
    return Ok("done", ctx.initial)


@step(events=("go", "done"))
def second(ctx: Context[Any]) -> Async:
    return Async()


@step
def third(ctx: Context[Any]) -> Ok:
    return Ok("done", [ctx.initial, dict(ctx.steps), dict(ctx.metadata)])


class Line(Workflow[Any], unique=Unique("line")):
    initial = first
    transitions = {first: {"done": second}, second: {"go": third, "done": Done}, third: {"done": Done}}


WORKFLOWS = (Line,)


class Bomb:
    """What touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def evils(sentinel: Path) -> list[Any]:
    """Values that some programs take for code."""
    touch = f"touch {sentinel}"
    pickled = base64.b64encode(pickle.dumps(Bomb(sentinel))).decode()
    return [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "__class__",
        f"__import__('os').system('{touch}')",
        f"${{jndi:{touch}}}",
        "{{7*7}}",
        f"!!python/object/apply:os.system ['{touch}']",
        f"cos\nsystem\n(S'{touch}'\ntR.",
        pickled,
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": touch}},
        {"py/object": "subprocess.Popen", "py/reduce": [{"py/type": "os.system"}, {"py/tuple": [touch]}]},
        {"py/reduce": [{"py/function": "os.system"}, [touch]]},
        {"__reduce__": ["os.system", touch], "__class__": "os", "__dict__": {"a": 1}, "__init__": touch},
        {"__pydantic_extra__": {"x": touch}, "model_fields": {}},
        {"$type": "System.Diagnostics.Process, System", "$ref": "#/x"},
        {"exc_type": "SystemExit", "exc_module": "builtins", "exc_message": touch},
        {"pgflow:sealed": pickled},
    ]


def imported_since(known: set[str]) -> set[str]:
    """The modules imported since, without those that Python or pgflow loads lazily on its own behalf.

    Python's private accelerators are left out by their underscore: which of them a traceback loads, and when, differs
    between versions (3.13 adds `_suggestions`), and no value names one.
    """
    new = set(sys.modules) - known
    private = {name for name in new & sys.stdlib_module_names if name.startswith("_")}
    return {name for name in new - private if not name.startswith(("pgflow", "tests", "encodings"))}


def test_what_such_values_are_worth_elsewhere(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "touched"))).close()  # noqa: S301 -- that is the point
    assert (tmp_path / "touched").exists()


def test_such_values_come_back_as_they_were_and_nothing_is_imported(
    app: Pgflow, conn: Connection, tmp_path: Path
) -> None:
    sentinel = tmp_path / "touched"
    values = [each for each in evils(sentinel) if not (isinstance(each, dict) and "pgflow:sealed" in each)]
    for number, value in enumerate(values):
        text = json.dumps(value)
        conn.execute(
            "select pgflow.start('Line', %s, %s::jsonb, metadata => jsonb_build_object('m', %s::jsonb), tags => %s)",
            [str(number), text, text, [text[:64].replace("\n", "")]],
        )
    with Inside(app):
        until(lambda: len(Line.list(status="waiting")) == len(values), "all wait")
        known = set(sys.modules)
        for number, value in enumerate(values):
            conn.execute("select pgflow.resume('Line', %s, 'go', %s::jsonb)", [str(number), json.dumps(value)])
        until(lambda: not Line.list(status=["running", "waiting"]), "all end")
    for number, value in enumerate(values):
        found = Line.get(str(number))
        assert (found.status, found.unreadable) == ("completed", None)
        assert found.steps["third"] == [value, {"first": value, "second": value}, {"m": value}]
    for words in (["list", "--json"], ["show", "Line", "0"], ["jobs", "--json"], ["doctor"]):
        CliRunner().invoke(cli, [*words, "--dsn", app.dsn])
    assert imported_since(known) == set()
    assert not sentinel.exists()


COLUMNS = {
    "instances": ("workflow", "status", "input", "metadata", "error", "unique_key", "id"),
    "jobs": ("step", "kind", "queue", "config", "awaits", "errors"),
    "step_results": ("step", "event", "output", "metadata", "errors", "targets"),
    "signals": ("step", "name", "payload"),
    "definitions": ("graph", "workflow", "hash"),
}
JSON_COLUMNS = {"input", "metadata", "error", "config", "awaits", "errors", "output", "payload", "graph"}


PLACES = [f"{table}.{column}" for table, columns in COLUMNS.items() for column in columns]


@pytest.fixture
def restored(conn: Connection) -> Iterator[Connection]:
    """A connection whose test may spoil the definitions, too."""
    columns = sql.SQL("workflow, version, hash, graph, registered_at, current_since")  # the others are generated
    conn.execute(sql.SQL("create temporary table kept as select {} from pgflow.definitions").format(columns))
    yield conn
    conn.execute("delete from pgflow.definitions")
    conn.execute(sql.SQL("insert into pgflow.definitions ({}) select * from kept").format(columns))


def spoil(conn: Connection, table: str, column: str, run: int, value: Any) -> None:
    """Write a value into a column of one instance's rows, or of the definitions, unless the column refuses it."""
    is_json = column in JSON_COLUMNS
    cast = "%s::jsonb" if is_json else "array[%s]" if column == "targets" else "%s"
    where = "true" if table == "definitions" else "run = %s"
    update = sql.SQL("update {} set {} = {} where {}").format(
        sql.Identifier("pgflow", table), sql.Identifier(column), sql.SQL(cast), sql.SQL(where)
    )
    given = json.dumps(value) if is_json else json.dumps(value)[:60]
    with suppress(psycopg.errors.CheckViolation):  # a kind or a status of its own
        conn.execute(update, [given] if table == "definitions" else [given, run])


@pytest.mark.parametrize("place", PLACES)
def test_in_no_column_do_they_do_anything(place: str, app: Pgflow, restored: Connection, tmp_path: Path) -> None:
    """One row is spoiled after another; whatever becomes of those, the others go on and no worker ends."""
    table, column = place.split(".")
    sentinel = tmp_path / "touched"
    values = evils(sentinel)
    started = Line.start_many((f"v{number}", {}) for number in range(len(values) + 1))
    with Inside(app):
        until(lambda: len(Line.list(status="waiting")) == len(values) + 1, "all wait")
    for number in range(len(values) + 1):
        Line.resume(f"v{number}", "go", {"number": number})
    known = set(sys.modules)
    for each, value in zip(started, values, strict=False):
        spoil(restored, table, column, each.run, value)
    sound = started[-1].run
    status = "select status from pgflow.instances where run = %s"
    with Inside(app):
        until(lambda: restored.execute(status, [sound]).fetchall() == [("completed",)], "the untouched instance ends")
    for words in (["list", "--json"], ["show", "Line", "v0", "--json"], ["jobs", "--json"]):
        done = CliRunner().invoke(cli, [*words, "--dsn", app.dsn])
        assert done.exit_code in (0, 5), done.output  # 5: its workflow has another name now
    assert imported_since(known) == set()
    assert not sentinel.exists()
