"""An app whose workflows have an optional input, and steps that take an optional payload."""

from typing import Any

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step


@step(events=("answered",), output=int | None)
def ask(ctx: Context[Any]) -> Async:
    """Wait for a number or null."""
    return Async()


@step(events=("answered",))
def ask_anything(ctx: Context[Any]) -> Async:
    """Wait for any payload."""
    return Async()


class OptionalFlow(Workflow[int | None], unique=Unique("optional")):
    """Takes a number or None."""

    initial = ask
    transitions = {ask: {"answered": Done}}


class AnyFlow(Workflow[Any], unique=Unique("anything")):
    """Takes any input."""

    initial = ask_anything
    transitions = {ask_anything: {"answered": Done}}


app = Pgflow(workflows=[OptionalFlow, AnyFlow])
