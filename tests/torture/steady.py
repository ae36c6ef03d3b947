"""The workflows of the soak: the benchmark's, and one whose first attempt fails; `TURN` is their mix."""

from __future__ import annotations

from datetime import timedelta

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step
from pgflow.bench import trace
from pgflow.bench.flows import Chain, Fan, Load, Signalled, Timed

__all__ = ["TURN", "WORKFLOWS", "Stumbling", "app"]

SOON = Retry(max_attempts=3, base=timedelta(milliseconds=100), max_backoff=timedelta(milliseconds=500))


@step(retry=SOON)
def stumble(ctx: Context[Load]) -> Ok:
    """Fails the first time."""
    if ctx.attempt == 1:
        raise ConnectionError("the service does not answer")
    trace.count()
    return Ok("done", {"attempt": ctx.attempt})


class Stumbling(Workflow[Load], unique=Unique("stumbling")):
    """A step that fails once and is retried."""

    initial = stumble
    transitions = {stumble: {"done": Done}}


TURN = (Chain, Timed, Chain, Signalled, Fan, Chain, Stumbling, Timed, Chain, Signalled)
WORKFLOWS = (Chain, Fan, Timed, Signalled, Stumbling)
app = Pgflow(workflows=WORKFLOWS)
