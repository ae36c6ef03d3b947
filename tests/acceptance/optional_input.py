"""An app whose workflow has an optional input, and a step that takes an optional payload."""

from typing import Any

from pgflow import Async, Context, Done, Pgflow, Unique, Workflow, step


@step(events=("told",), output=int | None)
def ask(ctx: Context[Any]) -> Async:
    """Wait for a number, or for the answer that there is none."""
    return Async()


@step(events=("told",))
def ask_anything(ctx: Context[Any]) -> Async:
    """Wait for any answer."""
    return Async()


class OptionalFlow(Workflow[int | None], unique=Unique("optional")):
    """Has no input, or a number."""

    initial = ask
    transitions = {ask: {"told": Done}}


class AnyFlow(Workflow[Any], unique=Unique("anything")):
    """Has any input."""

    initial = ask_anything
    transitions = {ask_anything: {"told": Done}}


app = Pgflow(workflows=[OptionalFlow, AnyFlow])
