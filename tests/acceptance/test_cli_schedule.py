"""`pgflow schedule`: list, next, add, pause, resume, run, backfill and remove."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

from pgflow import Pgflow, schedule
from pgflow.cli import cli
from pgflow.database.connect import connect
from tests.acceptance.shop import OrderFlow
from tests.conftest import Server

ORDER = '{"item_count": 1, "user_id": 42}'


@pytest.fixture(scope="module")
def dsn(server: Server, new_database: Callable[..., str], template: str) -> str:
    return new_database(server, template)


@pytest.fixture
def app(dsn: str) -> Iterator[Pgflow]:
    app = Pgflow(dsn, workflows=[OrderFlow])
    app.register()
    yield app
    app.close()
    with connect(dsn, "test") as conn:
        for table in ("schedules", "instances", "jobs", "requests"):
            conn.execute(f"delete from pgflow.{table}".encode())  # noqa: S608 -- the names stand above


def pgflow(app: Pgflow, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["schedule", *arguments, "--dsn", app.dsn], env={"COLUMNS": "200"})


def done(app: Pgflow, *arguments: str) -> str:
    found = pgflow(app, *arguments)
    assert found.exit_code == 0, found.exception
    return found.output


def test_a_schedule_is_added_listed_paused_resumed_run_and_removed(app: Pgflow) -> None:
    assert done(app, "list") == "no schedules\n"
    new = ("weekly", "OrderFlow", "--cron", "0 9 * * mon", "--tz", "Europe/Berlin", "--input", ORDER)
    assert done(app, "add", *new, "--jitter", "5m") == "added weekly: 0 9 * * mon Europe/Berlin\n"
    assert (
        done(app, "add", "often", "OrderFlow", "--every", "90s", "--overlap", "queue") == "added often: every 0:01:30\n"
    )
    header, often, weekly = done(app, "list").splitlines()
    assert header.split()[:4] == ["NAME", "TARGET", "WHEN", "STATE"]
    assert weekly.split()[:2] == ["weekly", "OrderFlow"]
    assert "active" in often
    assert done(app, "pause", "weekly", "--by", "ada") == "paused weekly\n"
    assert "by ada" in done(app, "list")
    assert done(app, "resume", "weekly") == "resumed weekly\n"
    first, second = done(app, "next", "weekly", "-n", "2").splitlines()
    assert first.endswith("Europe/Berlin")
    assert " 09:00:00+0" in first
    assert first < second
    started = json.loads(done(app, "run", "weekly", "--json"))
    (instance,) = app.list(OrderFlow)
    assert (started["run"], started["created"]) == (str(instance.run), True)
    assert instance.metadata["schedule"] == "weekly"
    assert instance.metadata["scheduled_for"] == started["scheduled_for"]
    assert done(app, "remove", "weekly") == "removed weekly\n"
    assert [each.name for each in app.schedules.list()] == ["often"]


def test_a_backfill_starts_the_instants_of_a_range(app: Pgflow) -> None:
    app.schedules.add("@daily", OrderFlow, name="daily", args=json.loads(ORDER))
    span = ("daily", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-04T00:00:00Z")
    dry = done(app, "backfill", *span, "--dry-run")
    assert [line.split()[0] for line in dry.splitlines()[1:]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert app.list(OrderFlow) == []
    printed = json.loads(done(app, "backfill", *span, "--json", "--idempotency-key", "january"))
    assert json.loads(done(app, "backfill", *span, "--json", "--idempotency-key", "january")) == printed
    assert len(app.list(OrderFlow)) == 3
    assert {each["created"] for each in json.loads(done(app, "backfill", *span, "--json"))["runs"]} == {False}
    assert done(app, "backfill", "daily", "--from", "2026-01-01T01:00:00Z", "--to", "2026-01-01T02:00:00Z") == (
        "no instants in that range\n"
    )


def test_the_document_has_all_fields(app: Pgflow) -> None:
    declared = schedule("@hourly", OrderFlow, name="hourly", args=json.loads(ORDER), jitter=timedelta(minutes=1))
    shop = Pgflow(app.dsn, workflows=[OrderFlow], schedules=[declared], name="shop")
    shop.register()
    shop.close()
    (record,) = json.loads(done(app, "list", "--json"))["schedules"]
    assert (record["when"], record["jitter"], record["declared_by"]) == ("@hourly", 60.0, "shop")
    assert record["input"]["item_count"] == 1


def test_a_start_that_was_refused_is_shown_below_the_list(app: Pgflow) -> None:
    app.schedules.add("@hourly", OrderFlow, name="hourly", args=json.loads(ORDER))
    with connect(app.dsn, "test") as conn:
        conn.execute("""update pgflow.schedules set last_error = '{"reason": "no\\nway", "at": "x"}'""")
    assert "hourly: the last start was refused: no\\nway" in done(app, "list")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "problem"),
    [
        (["add", "a", "OrderFlow", "--cron", "99 * * * *"], 6, "cron='99 * * * *' is refused: the minute '99'"),
        (["add", "a", "OrderFlow", "--cron", "@daily", "--tz", "Berlin"], 6, "Did you mean Europe/Berlin?"),
        (["add", "a", "OrderFlow", "--every", "10ms"], 6, "from one second to 100 years"),
        (["add", "a", "OrdrFlow", "--cron", "@daily"], 5, "Did you mean OrderFlow?"),
        (["add", "a", "OrderFlow", "--cron", "@hourly", "--jitter", "2h"], 6, "jitter="),
        (["add", "weekly", "OrderFlow", "--cron", "@daily"], 7, "already"),
        (["pause", "weekli"], 5, "Did you mean weekly?"),
        (["resume", "weekli"], 5, "Did you mean weekly?"),
        (["run", "weekli"], 5, "Did you mean weekly?"),
        (["next", "weekli"], 5, "Did you mean weekly?"),
        (["remove", "weekli"], 5, "Did you mean weekly?"),
        (["backfill", "weekly", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], 6, "end="),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    app: Pgflow, arguments: list[str], exit_code: int, problem: str
) -> None:
    app.schedules.add("0 9 * * mon", OrderFlow, name="weekly", args=json.loads(ORDER))
    found = pgflow(app, *arguments)
    assert found.exit_code == exit_code
    assert problem in found.output
    assert [each.name for each in app.schedules.list()] == ["weekly"]


def test_an_expression_or_an_interval_is_needed(app: Pgflow) -> None:
    found = pgflow(app, "add", "a", "OrderFlow")
    assert found.exit_code == 2
    assert "either --cron or --every" in found.output
