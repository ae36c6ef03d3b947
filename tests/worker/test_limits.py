"""A value that the database refuses fails its own instance alone, also in a batch, and appears in no message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step
from pgflow.database.connect import Connection
from tests.worker.thread_worker import Inside
from tests.worker.waiting import until

CANARY = "canary-4711"
ONCE = Retry(max_attempts=1)


@step(retry=ONCE)
async def first(ctx: Context[Any]) -> Ok:
    return Ok("done", CANARY * ctx.initial["times"])


@step(transactional=True, retry=ONCE)
def second(ctx: Context[Any]) -> Ok:
    return Ok("done", CANARY * ctx.initial.get("later", 1))


class Line(Workflow[Any], unique=Unique("line")):
    initial = first
    transitions = {first: {"done": second}, second: {"done": Done}}


WORKFLOWS = (Line,)


@pytest.fixture
def tight(conn: Connection) -> Iterator[Connection]:
    """A connection to a database in which a test may lower the limits; they are as before when it ends."""
    yield conn
    for table, column, most in (("step_results", "output", 50_331_648), ("instances", "input", 3_145_728)):
        constrain(conn, table, column, most)


def constrain(conn: Connection, table: str, column: str, most: int) -> None:
    name = f"{table}_{column}_limit"
    conn.execute(
        f"alter table pgflow.{table} drop constraint {name}, add constraint {name}"
        f" check (octet_length({column}::text) <= {most}) not valid".encode()
    )


def test_of_a_batch_only_the_instance_fails_whose_value_is_refused(
    app: Pgflow, tight: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    constrain(tight, "step_results", "output", 100)
    given = [(f"v{number}", {"times": 30 if number == 7 else 1}) for number in range(20)]
    Line.start_many([*given, ("later", {"times": 1, "later": 30})])
    with Inside(app, {"default": 50}):
        until(lambda: not Line.list(status=["pending", "running"]), "the end of all instances")
    failed = {each.id: each for each in Line.list(status="failed")}
    assert set(failed) == {"line::v7", "line::later"}
    assert len(Line.list(status="completed")) == 19
    for each in failed.values():
        assert each.error is not None
        assert each.error["reason"] == (
            "the result of the step cannot be stored: a value is over the limit that the database has for output of "
            "step_results"
        )
        assert each.error["type"] == "InvalidPayload"
        assert CANARY not in json.dumps(each.error)
    assert CANARY not in caplog.text
    assert "settling one by one" in caplog.text


def test_an_instance_that_cannot_be_updated_waits_until_it_is_repaired(
    app: Pgflow, tight: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    Line.start_many([("bad", {"times": 1, "x": CANARY * 9}), *((f"v{number}", {"times": 1}) for number in range(5))])
    constrain(tight, "instances", "input", 60)
    with Inside(app, {"default": 50}):  # which holds nothing in the end
        until(lambda: len(Line.list(status="completed")) == 5, "the others complete")
        until(lambda: tight.execute("select from pgflow.jobs where state = 'scheduled'").fetchall(), "it is put off")
    assert Line.get("bad").status == "running"
    assert "line::bad cannot be updated: a value is over the limit that the database has for input" in caplog.text
    assert CANARY not in caplog.text
    constrain(tight, "instances", "input", 3_145_728)
    tight.execute("update pgflow.jobs set run_at = pgflow.now()")
    with Inside(app, sweep=timedelta(seconds=0.2)):
        until(lambda: Line.get("bad").status == "completed", "it continues after the repair")
