"""Helpers that build steps and workflow classes inside a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pgflow import Context, Done, Ok, Step, Unique, Workflow, step

Input = dict[str, Any]
Flow = type[Workflow[Any]]


def make(name: str, *events: str, act: Callable[[Context[Any]], Any] | None = None, **options: Any) -> Step:
    """Return a step that runs `act`, or completes with the event that the input has for it, or with its first event."""
    declared = events or ("done",)

    @step(events=declared, name=name, **options)
    def stub(ctx: Context[Any]) -> Any:
        return act(ctx) if act is not None else Ok(ctx.initial.get(name, declared[0]))

    return stub


def define(initial: Any, transitions: Any, *, name: str = "Flow", **options: Any) -> Flow:
    """Return a workflow class; arguments that are `...` are left out."""
    given = (("initial", initial), ("transitions", transitions))
    body = {"__module__": __name__, **{key: value for key, value in given if value is not ...}}
    flow: Flow = type(name, (Workflow,), body, **{"unique": Unique("k"), **options})
    return flow


def chain(*steps: Step, **options: Any) -> Flow:
    """Return a workflow with these steps in a row: every event of a step leads to the next one."""
    follows = [*steps[1:], Done]
    transitions = {each: dict.fromkeys(each.emits(), after) for each, after in zip(steps, follows, strict=True)}
    return define(steps[0], transitions, **options)
