"""`pgflow start` and `resume` tell an input or a payload that is left out from null and from an empty object."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from pgflow import Pgflow
from tests.acceptance.optional_input import AnyFlow, OptionalFlow
from tests.acceptance.test_cli_instances import Shop, new_shop
from tests.conftest import Server

APP = "tests.acceptance.optional_input:app"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def shop(server: Server, new_database: Callable[..., str]) -> Shop:
    """A database that knows the workflows, without a worker."""
    shop = new_shop(server, new_database)
    with_app(shop, lambda app: app.register())
    return shop


@pytest.fixture
def value() -> str:
    """A business value that no other test has."""
    return f"v{next(NUMBERS)}"


def with_app(shop: Shop, use: Callable[[Pgflow], Any]) -> None:
    app = Pgflow(shop.dsn, workflows=[OptionalFlow, AnyFlow])
    try:
        use(app)
    finally:
        app.close()


@pytest.mark.parametrize("more", [{}, {"PGFLOW_APP": APP}], ids=["without an app", "with an app"])
@pytest.mark.parametrize(
    ("workflow", "given"),
    [("OptionalFlow", {"": None, "null": None, "0": 0}), ("AnyFlow", {"": {}, "null": None, "{}": {}})],
)
def test_start_keeps_apart_an_input_that_is_left_out_and_null(
    shop: Shop, value: str, workflow: str, given: dict[str, Any], more: dict[str, str]
) -> None:
    shop.ok("start", workflow, f"{value}-", **more)
    shop.ok("start", workflow, f"{value}-null", "--input", "null", **more)
    lines = [
        json.dumps({"value": f"{value}-many-{each}"} | ({"input": json.loads(each)} if each else {})) for each in given
    ]
    shop.ok("start", workflow, "--from", "-", stdin="\n".join(lines), **more)
    stored = {f"{value}-many-{each}": expected for each, expected in given.items()}
    stored |= {f"{value}-": given[""], f"{value}-null": given["null"]}
    assert {each: shop.get(each, workflow).input for each in stored} == stored


def test_an_app_refuses_an_empty_object_where_it_does_not_fit(shop: Shop, value: str) -> None:
    told = shop.refused(6, "start", "OptionalFlow", value, "--input", "{}", PGFLOW_APP=APP)
    assert "OptionalFlow: the input does not fit" in told


@pytest.mark.parametrize(
    ("workflow", "sent"),
    [("OptionalFlow", {"": None, "null": None, "3": 3}), ("AnyFlow", {"": {}, "null": None, "{}": {}})],
)
def test_resume_keeps_apart_a_payload_that_is_left_out_and_null(
    shop: Shop, value: str, workflow: str, sent: dict[str, Any]
) -> None:
    for each in sent:
        with_app(shop, lambda app, each=each: app.start(workflow, f"{value}-{each}"))  # type: ignore[misc]
        payload = ("--payload", each) if each else ()
        done = shop.pgflow("resume", workflow, f"{value}-{each}", "told", *payload)
        assert (done.returncode, done.stdout) == (0, "kept\n"), done
        (signal,) = shop.get(f"{value}-{each}", workflow).signals
        assert (signal.payload, signal.has_payload) == (json.loads(each) if each else None, each != "")
    told = json.loads(shop.ok("show", workflow, f"{value}-null", "--json"))["instance"]["signals"][0]
    assert (told["payload"], told["has_payload"]) == (None, True)
    with_app(shop, lambda app: app.run_worker(drain=True))
    ended = {each: shop.get(f"{value}-{each}", workflow) for each in sent}
    assert {found.status for found in ended.values()} == {"completed"}
    assert {each: next(iter(found.steps.values())) for each, found in ended.items()} == sent
