"""`pgflow start VALUE`: inputs, options and the errors they cause."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.deployment import APP, ORDER, Deployment


def test_an_order_goes_from_start_to_completed(live: Deployment, value: str) -> None:
    printed = live.ok("start", "OrderFlow", value, "--input", ORDER, "--app", APP)
    run = live.get(value).run
    assert printed == f"orderid::{value} run {run}\n"
    live.until_status(value, "waiting")
    assert live.ok("resume", "OrderFlow", value, "payment_confirmed", "--payload", '{"amount": 3}') == "delivered\n"
    done = live.until_status(value, "completed")
    assert [(each.step, each.event) for each in done.history] == [
        ("validate_order", "valid"),
        ("charge", "payment_confirmed"),
        ("ship", "shipped"),
    ]
    assert done.steps["ship"] == {"paid": {"amount": 3}}


def test_start_works_without_an_app_for_a_registered_workflow(live: Deployment, value: str) -> None:
    record = json.loads(live.ok("start", "OrderFlow", value, "--input", ORDER, "--json"))
    assert record == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "id": f"orderid::{value}",
        "run": str(live.get(value).run),
    }
    live.until_status(value, "waiting")


def test_the_input_may_come_from_a_file_or_a_pipe(idle: Deployment, tmp_path: Path, value: str) -> None:
    file = tmp_path / "order.json"
    file.write_text('\ufeff{\n  "item_count": 4\n}\n', encoding="utf-8")
    idle.ok("start", "OrderFlow", value, "--input", f"@{file}")
    assert idle.get(value).input == {"item_count": 4}
    idle.ok("start", "OrderFlow", value + "b", "--input", "-", stdin='{"item_count": 5}')
    assert idle.get(value + "b").input == {"item_count": 5}


def test_a_start_takes_tags_metadata_priority_and_a_time(idle: Deployment, value: str) -> None:
    options = ("--tag", "a b", "--tag", "c", "--metadata", '{"from": "test"}', "--priority", "-5", "--version", "1")
    idle.ok("start", "OrderFlow", value, *options, "--delay", "1h30m")
    found = idle.get(value)
    assert (found.status, found.tags, found.metadata) == ("pending", ("orders", "a b", "c"), {"from": "test"})
    (wait,) = found.waiting_for
    assert wait.until is not None
    assert 5390 < (wait.until - found.created_at).total_seconds() < 5401
    idle.ok("start", "OrderFlow", value + "at", "--at", "2099-01-31T12:00:00+02:00")
    assert idle.get(value + "at").waiting_for[0].until == datetime.fromisoformat("2099-01-31T10:00:00Z")
    shown = idle.ok("show", "OrderFlow", value + "at")
    assert shown.endswith("\n\nvalidate_order: scheduled for 2099-01-31 10:00:00Z\n")


def test_a_value_that_is_already_running_exits_with_7(idle: Deployment, value: str) -> None:
    idle.ok("start", "OrderFlow", value, "--input", ORDER)
    for more in ({}, {"PGFLOW_APP": APP}):
        line = idle.refused(7, "start", "OrderFlow", value, "--input", ORDER, **more)
        run = idle.get(value).run
        assert line == (
            f"pgflow: OrderFlow 'orderid::{value}' is already running, in run {run}. "
            f"Show it with: pgflow show OrderFlow {value}"
        )


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("{", "input is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("", "input is not valid JSON: Expecting value"),
        ('{"item_count": NaN}', "input is not valid JSON: NaN is "),
        ('{"item_count": -Infinity}', "input is not valid JSON: -Infinity is "),
        ('{"name": "a\\u0000b"}', "input.name holds a NUL character"),
        ('{"\\u0000": 1}', "a key of input holds a NUL character"),
        ('{"name": ["\\ud800"]}', "input.name[0] holds a lone surrogate"),
        (f"{'[' * 65}{']' * 65}", "input is nested too deeply"),
        ("[" * 20_000, "input is "),
        ("1" * 5000, "input is not valid JSON: Exceeds the limit (4300 digits)"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_an_invalid_input_is_refused_in_one_line_with_exit_code_6(
    idle: Deployment, value: str, argument: str, problem: str
) -> None:
    before = idle.count("instances")
    line = idle.refused(6, "start", "OrderFlow", value, "--input", argument)
    assert line.startswith(f"pgflow: {problem}")
    assert len(line) < 400
    assert idle.count("instances") == before


def test_invalid_utf_8_is_refused(idle: Deployment, tmp_path: Path, value: str) -> None:
    line = idle.refused(6, "start", "OrderFlow", value, "--input", "-", stdin=b'{"a": "\xff"}')
    assert line == "pgflow: input is not valid UTF-8 (byte 7)"
    line = idle.refused(6, "start", "OrderFlow", os.fsdecode(b"\xff"), "--input", "{}")
    assert line == "pgflow: VALUE is not valid UTF-8"
    file = tmp_path / "large.json"
    file.write_text(f'"{"x" * 16_777_215}"')
    too_large = "input is 16,777,217 bytes of JSON, more than the 16,777,216 allowed"
    assert too_large in idle.refused(6, "start", "OrderFlow", value, "--input", f"@{file}")
    file.write_text(" " * 67_108_865)
    refusal = idle.refused(6, "start", "OrderFlow", value, "--input", f"@{file}")
    assert "input is longer than 67,108,864 bytes" in refusal


def test_the_input_model_of_the_app_validates_the_input(idle: Deployment, value: str) -> None:
    line = idle.refused(6, "start", "OrderFlow", value, "--input", '{"item_count": "many"}', "--app", APP)
    assert line.startswith("pgflow: OrderFlow: the input does not fit Order: item_count: ")
    line = idle.refused(6, "start", "OrderFlow", value, "--app", APP)
    assert "item_count: Field required" in line


@pytest.mark.parametrize(
    ("options", "exit_code", "problem"),
    [
        (("--input", "@nowhere.json"), 2, "input: cannot read nowhere.json: No such file or directory"),
        (("--metadata", "[1]"), 6, "metadata must be a JSON object"),
        (("--metadata", "{"), 6, "metadata is not valid JSON"),
        (
            ("--delay", "10"),
            2,
            "'10' is not a valid duration: use a number with a unit, such as 30s, 5m, 1h30m or 2d. Units: ms,",
        ),
        (("--delay", "-1h"), 2, "'-1h' is not a valid duration"),
        (("--delay", "999999999w"), 2, "duration must be at most 3650 days, got 999999999w"),
        (("--at", "tomorrow"), 2, "'tomorrow' is not a valid timestamp"),
        (("--at", "2099-01-31T12:00:00"), 2, "timestamp '2099-01-31T12:00:00' has no time zone"),
        (("--version", "7"), 5, "OrderFlow has no version 7"),
        (("--version", "7", "--app", APP), 6, "OrderFlow is not a versioned workflow"),
        (("--app", "tests.acceptance.nowhere:app"), 2, "no module named 'tests.acceptance.nowhere' in "),
        (("--app", "tests.acceptance.shop:nothing"), 2, "'nothing' in module tests.acceptance.shop does not exist"),
        (("--app", "tests.acceptance.shop"), 2, "--app must have the form module:name, got 'tests.acceptance.shop'"),
        (("--schema", "Other"), 2, "'Other' is not a valid schema name"),
        (("--schema", "other"), 4, 'pgflow is not installed in schema "other". Run: pgflow migrate --schema other'),
    ],
)
def test_an_invalid_option_is_refused_in_one_line_with_its_exit_code(
    idle: Deployment, value: str, options: tuple[str, ...], exit_code: int, problem: str
) -> None:
    before = idle.count("instances")
    line = idle.refused(exit_code, "start", "OrderFlow", value, *options)
    assert line.startswith(f"pgflow: {problem}")
    assert idle.count("instances") == before


@pytest.mark.parametrize("bad", ["", "a b", "a::b", "x" * 201, "tab\there"])
def test_an_invalid_business_value_exits_with_6(idle: Deployment, bad: str) -> None:
    assert "business value" in idle.refused(6, "start", "OrderFlow", bad, "--input", ORDER)
