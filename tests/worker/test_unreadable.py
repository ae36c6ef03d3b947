"""Unreadable values, written into the tables by hand, affect their own instance only."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from pgflow import Async, Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.cli import cli
from pgflow.core.values.payload import DEPTH_LIMIT
from pgflow.database.connect import Connection
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

Input = dict[str, Any]
DEEP = "[" * 70 + "]" * 70


@step
def first(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": 1}, metadata={"by": "first"})


@step(events=("go",))
def second(ctx: Context[Input]) -> Async:
    return Async()


class Line(Workflow[Input], unique=Unique("line")):
    initial = first
    transitions = {first: {"done": second}, second: {"go": Done}}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@step
def bury(ctx: Context[Input]) -> Ok:
    return Ok("done", deep(DEPTH_LIMIT))


@step
def dig(ctx: Context[Input]) -> Ok:
    return Ok("done", json.dumps(ctx.steps["bury"]).count("["))


class Deep(Workflow[Input], unique=Unique("deep")):
    initial = bury
    transitions = {bury: {"done": dig}, dig: {"done": second}, second: {"go": Done}}


WORKFLOWS = (Line, Deep)

SPOILED = {
    "input": ("update pgflow.instances set input = '{deep}' where run = {run}", "input: .* 64 levels deep"),
    "huge": ("update pgflow.instances set input = '[1e400]' where run = {run}", None),
    "larger": ("update pgflow.instances set input = '[1e400, 1.5e400, 0.5]' where run = {run}", None),
    "number": ("update pgflow.instances set input = ('[' || repeat('9', 400) || '.5]')::jsonb where run = {run}",
               "input: .* is beyond the range of a float"),
    "digits": ("update pgflow.instances set input = '[1e5000]' where run = {run}", "input: .*4300"),
    "metadata": ("update pgflow.instances set metadata = '[1]' where run = {run}", "metadata: it is not a JSON object"),
    "error": ("update pgflow.instances set error = '\"boom\"' where run = {run}", "error: it is not a JSON object"),
    "tags": ("update pgflow.instances set tags = array['a', null] where run = {run}", "tags: .* got null"),
    "created": ("update pgflow.instances set created_at = 'infinity' where run = {run}", "created_at: "),
    "early": ("update pgflow.instances set created_at = '0044-03-15 BC' where run = {run}", "created_at: "),
    "late": ("update pgflow.instances set created_at = '20000-01-01' where run = {run}", "created_at: "),
    "awaits": ("update pgflow.jobs set awaits = '[1]' where run = {run}", "job of step second: it is not a"),
    "run_at": ("update pgflow.jobs set run_at = 'infinity' where run = {run}", "time of step second"),
    "errors": ("update pgflow.jobs set errors = '3' where run = {run}", "errors of the job of step second"),
}  # fmt: skip
SPOILED_HISTORY = {
    "output": ("output = '{deep}'", "output of step first: .* 64 levels deep"),
    "metadata": ("metadata = '3'", "metadata of step first: it is not a JSON object"),
    "errors": ("errors = '{{}}'", "errors of step first: it is not a list"),
    "targets": ("targets = array[null]", "targets of step first: a string is needed, got null"),
    "finished_at": ("finished_at = 'infinity'", "end of step first"),
    "started_at": ("started_at = '-infinity'", "start of step first"),
}


def waiting(*values: str) -> dict[str, int]:
    """Instances of Line that wait at their second step, by value."""
    runs = {value: Line.start(value, {"value": value}).run for value in values}
    until(lambda: all(Line.get(value).status == "waiting" for value in values), "all wait")
    return runs


@pytest.mark.parametrize("what", SPOILED)
def test_a_row_that_cannot_be_read_spoils_no_page(what: str, app: Pgflow, conn: Connection) -> None:
    with Inside(app):
        runs = waiting("a", "b", "c")
    statement, message = SPOILED[what]
    whole = {each.run: each for each in app.storage.query()}
    conn.execute(statement.format(run=runs["b"], deep=DEEP).encode())

    for found in (Line.list(), app.storage.query(), Line.runs("b") + Line.runs("a") + Line.runs("c")):
        by_run = {each.run: each for each in found}
        assert len(by_run) == 3
        assert [by_run[runs[each]].unreadable for each in "ac"] == [None, None]
        assert [by_run[runs[each]].input for each in "ac"] == [{"value": "a"}, {"value": "c"}]
        _is_named(by_run[runs["b"]].unreadable, message)
    got = {each.run: each for each in app.storage.query()}
    assert [got[runs[each]] for each in "ac"] == [whole[runs[each]] for each in "ac"]
    one = Line.get("b")
    _is_named(one.unreadable, message)
    assert (one.id, one.status, one.steps) == ("line::b", "waiting", {"first": {"n": 1}})
    if message is not None and message.startswith("input"):
        assert one.input is None
    conn.execute("delete from pgflow.jobs")


def _is_named(unreadable: str | None, message: str | None) -> None:

    if message is None:  # odd, but it can be read
        assert unreadable is None
    else:
        assert unreadable is not None
        assert re.search(message, unreadable), unreadable


@pytest.mark.parametrize("what", SPOILED_HISTORY)
def test_a_result_that_cannot_be_read_leaves_the_others(what: str, app: Pgflow, conn: Connection) -> None:
    with Inside(app):
        runs = waiting("a", "b")
        Line.resume("b", "go", {"by": "hand"})
        until(lambda: Line.get("b").status == "completed", "it ends")
    change, message = SPOILED_HISTORY[what]
    update = f"update pgflow.step_results set {change} where run = {runs['b']} and step = 'first'"  # noqa: S608 -- ours
    conn.execute(update.format(deep=DEEP).encode())
    for found in (Line.get("b"), app.storage.get("line::b")):
        _is_named(found.unreadable, message)
        assert found.steps["second"] == {"by": "hand"}
        assert [each.step for each in found.history] == ["first", "second"]
        assert found.input == {"value": "b"}
    assert Line.get("a").unreadable is None
    assert [each.unreadable for each in Line.list()] == [None, None]  # a list comes without results


def test_the_commands_name_what_they_cannot_read(app: Pgflow, conn: Connection) -> None:
    with Inside(app):
        runs = waiting("a", "b")
    conn.execute(f"update pgflow.instances set input = '{DEEP}' where run = {runs['b']}".encode())  # noqa: S608 -- ours
    for arguments in (["list", "Line"], ["show", "Line", "b"], ["list", "--json"], ["show", "Line", "b", "--json"]):
        done = CliRunner().invoke(cli, [*arguments, "--dsn", app.dsn])
        message = done.output
        assert done.exit_code == 0, message
        assert "input: stored JSON is more than 64 levels deep" in message
        assert ("line::a" in message) == ("list" in arguments)


@pytest.mark.parametrize(
    "change",
    [
        f"input = '{DEEP}'",
        "input = '[1e5000]'",
        "metadata = '[1]'",
        "created_at = 'infinity'",
        "created_at = '-infinity'",
    ],
)
def test_a_worker_that_claims_a_batch_fails_the_one_and_goes_on_with_the_others(
    change: str, app: Pgflow, conn: Connection
) -> None:
    started = Line.start_many((f"w{number}", {"value": number}) for number in range(20))
    spoiled = started[7].run
    conn.execute(f"update pgflow.instances set {change} where run = {spoiled}".encode())  # noqa: S608 -- ours
    with Inside(app):
        until(lambda: not Line.list(status=["pending", "running"]), "the end of all instances")
    is_odd = "created_at" in change  # not needed to continue
    statuses = {each.run: each for each in app.storage.query()}
    assert [run for run, each in statuses.items() if each.status != "waiting"] == ([] if is_odd else [spoiled])
    if not is_odd:
        error = statuses[spoiled].error
        assert error is not None
        assert error["reason"]
    conn.execute("delete from pgflow.jobs")


def test_an_unreadable_signal_fails_its_instance_alone(app: Pgflow, conn: Connection) -> None:
    with Inside(app):
        runs = waiting("a", "b")
    conn.execute(
        f"insert into pgflow.signals (run, step, name, payload) values ({runs['b']}, 'second', 'go', '{DEEP}');"  # noqa: S608 -- ours
        f"update pgflow.jobs set state = 'ready', run_at = now() where run = {runs['b']}".encode()
    )
    with Inside(app):
        Line.resume("a", "go")
        until(lambda: Line.get("a").status == "completed" and Line.get("b").status == "failed", "both end")


def test_what_is_as_deep_as_may_be_goes_on(app: Pgflow, conn: Connection) -> None:
    Deep.start("a", {"x": deep(DEPTH_LIMIT - 1)})
    with Inside(app):
        until(lambda: Deep.get("a").status in ("waiting", "failed"), "it waits")
    with Inside(app):  # another worker, which knows no more than what is stored
        Deep.resume("a", "go", deep(DEPTH_LIMIT))
        until(lambda: Deep.get("a").status in ("completed", "failed"), "it ends")
    found = Deep.get("a")
    assert (found.status, found.error, found.unreadable) == ("completed", None, None)
    assert found.steps["dig"] == DEPTH_LIMIT
    assert found.steps["second"] == deep(DEPTH_LIMIT)
