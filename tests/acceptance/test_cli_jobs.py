"""`pgflow jobs`: columns, filters, pages and the JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

from pgflow import Pgflow
from pgflow.cli import cli
from pgflow.cli.error_reporting import report
from pgflow.errors import PgflowError
from tests.acceptance.shop import OrderFlow
from tests.conftest import Server


@pytest.fixture(scope="module")
def app(server: Server, new_database: Callable[..., str]) -> Iterator[Pgflow]:
    """A database with three jobs and no worker."""
    app = Pgflow(new_database(server), workflows=[OrderFlow])
    app.migrate()
    for value, tenant in (("a", "x"), ("b", "y")):
        app.start(OrderFlow, value, {"item_count": 1}, tags=[f"tag-{value}"], metadata={"tenant": tenant})
    app.start(OrderFlow, "c", {"item_count": 1}, delay=timedelta(days=1))
    yield app
    app.close()


def pgflow(app: Pgflow, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["jobs", "--dsn", app.dsn, *arguments], standalone_mode=False)


def listed(app: Pgflow, *arguments: str) -> list[str]:
    jobs = json.loads(pgflow(app, "--json", *arguments).stdout)["jobs"]
    return [job["instance_id"].partition("::")[2] for job in jobs]


def test_each_job_is_a_row(app: Pgflow) -> None:
    done = pgflow(app)
    header, *rows = done.stdout.splitlines()
    assert header.split() == [
        *("JOB", "INSTANCE", "WORKFLOW", "STEP", "KIND", "STATE", "QUEUE", "ATTEMPT"),
        *("RUN", "AT", "WORKER", "PROGRESS", "TAGS"),
    ]
    assert len(rows) == 3
    job = app.jobs(limit=1)[0]
    assert rows[0].split()[:7] == [
        *(str(job.id), job.instance_id, "OrderFlow", job.step, "execute", "ready", job.queue)
    ]
    assert rows[0].endswith("order_flow orders tag-a")
    assert done.stderr == ""


def test_filters_select_jobs(app: Pgflow) -> None:
    assert listed(app) == ["a", "b", "c"]
    assert listed(app, "OrderFlow", "--state", "scheduled") == ["c"]
    assert listed(app, "--queue", "default", "--tag", "order_flow", "--tag", "tag-b") == ["b"]
    assert listed(app, "--meta", '{"tenant": "x"}') == ["a"]
    assert listed(app, "--queue", "nope") == []


def test_after_selects_the_next_page(app: Pgflow) -> None:
    first = pgflow(app, "-n", "2")
    last = app.jobs(limit=2)[-1].id
    assert first.stderr == f"next page: --after {last}\n"
    assert listed(app, "--after", str(last)) == ["c"]
    assert pgflow(app, "--after", "1000").stderr == "no jobs\n"


def test_the_document_has_all_fields(app: Pgflow) -> None:
    printed = json.loads(pgflow(app, "--json", "--tag", "tag-a").stdout)
    job = app.jobs(tags=["tag-a"])[0]
    assert printed["schema_version"] == 1
    (record,) = printed["jobs"]
    assert record["id"] == str(job.id)
    assert record["run_at"].endswith("Z")
    assert record["worker"] is None
    assert record["tags"] == ["order_flow", "orders", "tag-a"]
    assert record["meta"] == job.meta == {
        "tenant": "x", "workflow": "OrderFlow", "workflow_version": 1, "instance_id": job.instance_id,
        "run": job.run, "step": job.step,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "exit_code", "problem"),
    [
        (["OrderFlw"], 5, "Did you mean OrderFlow?"),
        (["--meta", "[1]"], 6, "--meta must be a JSON object"),
        (["--meta", "{"], 6, "--meta is not valid JSON"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    app: Pgflow, arguments: list[str], exit_code: int, problem: str
) -> None:
    done = pgflow(app, *arguments)
    assert isinstance(done.exception, PgflowError)
    assert report(done.exception) == exit_code
    assert problem in f"{done.exception} {done.exception.hint}"
