"""Group A, connectors: a contract of two methods, which any step may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pgflow import Connector, Context, Done, Ok, Unique, Workflow, step
from pgflow.errors import UnsupportedAction
from tests.conformance.conftest import Stack


class Mail(Connector):
    """A connector that waits for its service."""

    def supported_actions(self) -> Sequence[str]:
        return ("send",)

    async def execute(self, action: str, params: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
        if action not in self.supported_actions():
            raise UnsupportedAction(f"Mail has no action {action!r}", hint="It has: send.")
        return {"to": params["to"], "from": config["from"]}


class Stamp(Connector):
    """A connector that does not wait."""

    def supported_actions(self) -> Sequence[str]:
        return ("stamp",)

    def execute(self, action: str, params: Mapping[str, Any], config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"stamped": params["letter"], "with": config["colour"]}


@step(events=("mailed",))
async def mail(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("mailed", await Mail().execute(ctx.initial["action"], {"to": "ada"}, {"from": "bob"}))


@step(events=("stamped",))
def stamp(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("stamped", Stamp().execute("stamp", {"letter": 1}, {"colour": "blue"}))


class Post(Workflow[dict[str, Any]], unique=Unique("post")):
    initial = mail
    transitions = {mail: {"mailed": stamp}, stamp: {"stamped": Done}}


@pytest.mark.parametrize("missing", ["execute", "supported_actions"])
def test_a16_a_connector_without_both_methods_cannot_be_instantiated(missing: str) -> None:
    """A16: a connector that lacks `execute` or `supported_actions` cannot be instantiated; with both it can."""
    half: Any = type("Half", (Mail,), {})
    assert half().supported_actions() == ("send",)
    half = type("Half", (Connector,), {name: vars(Mail)[name] for name in vars(Mail) if name != missing})
    with pytest.raises(TypeError, match=f"abstract.*{missing}"):
        half()
    with pytest.raises(TypeError, match=r"abstract.*execute.*supported_actions"):
        type("Neither", (Connector,), {})()


def test_a16_steps_call_a_connector_async_or_not(stack: Stack) -> None:
    """A16: a step can use the result of `execute(action, params, config)`, whether it is async or not."""
    stack.run(Post)
    Post.start("1", {"action": "send"})
    ended = stack.until(Post, "1")
    assert ended.status == "completed"
    assert ended.steps == {"mail": {"to": "ada", "from": "bob"}, "stamp": {"stamped": 1, "with": "blue"}}


def test_a16_an_unsupported_action_is_not_retried(stack: Stack) -> None:
    """A16: an action that the connector does not support fails the step in its first attempt."""
    stack.run(Post)
    Post.start("2", {"action": "fax"})
    ended = stack.until(Post, "2")
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.error["type"], ended.error["attempt"]) == ("UnsupportedAction", 1)
    assert ended.error["reason"] == "Mail has no action 'fax'"
