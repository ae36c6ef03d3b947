"""Group G: the calls on a workflow, uniqueness, discovery, cancel."""

from __future__ import annotations

from typing import Any

from pgflow import Context, Done, Ok, Unique, Workflow, step
from tests.conformance.conftest import Stack


@step
def work(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done")


class Plain(Workflow[dict[str, Any]], unique=Unique("orderid")):
    initial = work
    transitions = {work: {"done": Done}}


def test_g1_start_returns_the_business_id(stack: Stack) -> None:
    """G1: `W.start("abc123", input)` has the id `"orderid::abc123"`."""
    stack.run(Plain)
    assert Plain.start("abc123").id == "orderid::abc123"
    assert stack.until(Plain, "abc123").status == "completed"
