"""`pgflow start` and `resume` distinguish an absent input or payload from null and from an empty object."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pgflow import Pgflow
from tests.acceptance.deployment import Deployment
from tests.acceptance.optional_input import AnyFlow, OptionalFlow
from tests.conftest import Server

APP = "tests.acceptance.optional_input:app"


@pytest.fixture(scope="module")
def deployment(server: Server, migrated_database: Callable[[Server], str]) -> Deployment:
    """A deployment that knows the workflows, without a worker."""
    deployment = Deployment.create(server, migrated_database)
    with app_of(deployment) as app:
        app.register()
    return deployment


@contextmanager
def app_of(deployment: Deployment) -> Iterator[Pgflow]:
    app = Pgflow(deployment.dsn, workflows=[OptionalFlow, AnyFlow])
    try:
        yield app
    finally:
        app.close()


@pytest.mark.parametrize("variables", [{}, {"PGFLOW_APP": APP}], ids=["without an app", "with an app"])
@pytest.mark.parametrize(
    ("workflow", "inputs"),
    [("OptionalFlow", {"": None, "null": None, "0": 0}), ("AnyFlow", {"": {}, "null": None, "{}": {}})],
)
def test_start_distinguishes_an_absent_input_from_null(
    deployment: Deployment, value: str, workflow: str, inputs: dict[str, Any], variables: dict[str, str]
) -> None:
    deployment.ok("start", workflow, f"{value}-", **variables)
    deployment.ok("start", workflow, f"{value}-null", "--input", "null", **variables)
    lines = [
        json.dumps({"value": f"{value}-many-{each}"} | ({"input": json.loads(each)} if each else {})) for each in inputs
    ]
    deployment.ok("start", workflow, "--from", "-", stdin="\n".join(lines), **variables)
    expected = {f"{value}-many-{each}": stored for each, stored in inputs.items()}
    expected |= {f"{value}-": inputs[""], f"{value}-null": inputs["null"]}
    assert {each: deployment.get(each, workflow).input for each in expected} == expected


def test_an_app_refuses_an_empty_object_that_does_not_fit_the_input_type(deployment: Deployment, value: str) -> None:
    line = deployment.refused(6, "start", "OptionalFlow", value, "--input", "{}", PGFLOW_APP=APP)
    assert "OptionalFlow: the input does not fit" in line


@pytest.mark.parametrize(
    ("workflow", "payloads"),
    [("OptionalFlow", {"": None, "null": None, "3": 3}), ("AnyFlow", {"": {}, "null": None, "{}": {}})],
)
def test_resume_distinguishes_an_absent_payload_from_null(
    deployment: Deployment, value: str, workflow: str, payloads: dict[str, Any]
) -> None:
    with app_of(deployment) as app:
        for each in payloads:
            app.start(workflow, f"{value}-{each}")
            options = ("--payload", each) if each else ()
            done = deployment.pgflow("resume", workflow, f"{value}-{each}", "answered", *options)
            assert (done.returncode, done.stdout) == (0, "kept\n"), done
            (signal,) = deployment.get(f"{value}-{each}", workflow).signals
            assert (signal.payload, signal.has_payload) == (json.loads(each) if each else None, each != "")
        shown = json.loads(deployment.ok("show", workflow, f"{value}-null", "--json"))["instance"]["signals"][0]
        assert (shown["payload"], shown["has_payload"]) == (None, True)
        app.run_worker(drain=True)
    ended = {each: deployment.get(f"{value}-{each}", workflow) for each in payloads}
    assert {found.status for found in ended.values()} == {"completed"}
    assert {each: next(iter(found.steps.values())) for each, found in ended.items()} == payloads
