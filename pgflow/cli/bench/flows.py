"""The workflows that are measured: their steps do nothing but make a mark, so that what is left is the engine's."""

from datetime import timedelta

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Unique, Wait, WaitForEvent, Workflow, step
from pgflow.cli.bench import marks

__all__ = [
    "BRANCHES",
    "CHAIN",
    "WAIT",
    "WORKFLOWS",
    "Chain",
    "Fan",
    "Load",
    "Signalled",
    "Single",
    "Sleeping",
    "Timed",
    "app",
]

CHAIN = 5  # steps in a row
BRANCHES = 10  # side by side
WAIT = timedelta(seconds=1)


class Load(BaseModel):
    """The input: `sent`, when it was started, in monotonic nanoseconds; 0 when nobody asks when its steps begin."""

    sent: int = 0


def _mark(ctx: Context[Load], number: int = 0) -> Ok:
    if ctx.initial.sent:
        marks.record(ctx.initial.sent, number)
    else:
        marks.count()
    return Ok("done", {"number": number})


@step
async def only(ctx: Context[Load]) -> Ok:
    """The one step."""
    return _mark(ctx)


class Single(Workflow[Load], unique=Unique("single")):
    """One step: a background task."""

    initial = only
    transitions = {only: {"done": Done}}


@step
async def first(ctx: Context[Load]) -> Ok:
    """The first step."""
    return _mark(ctx, 1)


@step
async def second(ctx: Context[Load]) -> Ok:
    """The second step."""
    return _mark(ctx, 2)


@step
async def third(ctx: Context[Load]) -> Ok:
    """The third step."""
    return _mark(ctx, 3)


@step
async def fourth(ctx: Context[Load]) -> Ok:
    """The fourth step."""
    return _mark(ctx, 4)


@step
async def fifth(ctx: Context[Load]) -> Ok:
    """The fifth step."""
    return _mark(ctx, 5)


class Chain(Workflow[Load], unique=Unique("chain")):
    """Five steps in a row."""

    initial = first
    transitions = {
        first: {"done": second},
        second: {"done": third},
        third: {"done": fourth},
        fourth: {"done": fifth},
        fifth: {"done": Done},
    }


@step
async def split(ctx: Context[Load]) -> Ok:
    """The step before the branches."""
    return Ok("done")


@step
async def branch(ctx: Context[Load]) -> Ok:
    """What each branch does."""
    return _mark(ctx)


@step
async def join(ctx: Context[Load]) -> Ok:
    """The step after the branches: what all of them came to."""
    return Ok("done", {"branches": sum(key.startswith("branch") for key in ctx.steps)})


class Fan(Workflow[Load], unique=Unique("fan")):
    """Ten branches side by side, and a step that waits for all of them."""

    initial = split
    transitions = {
        split: {"done": [branch.named(f"branch_{number}") for number in range(BRANCHES)]},
        **{branch.named(f"branch_{number}"): {"done": join} for number in range(BRANCHES)},
        join: {"done": Done},
    }


pause = Wait(WAIT).named("pause")


class Timed(Workflow[Load], unique=Unique("timed")):
    """A step, a timer of a second, and another step."""

    initial = first
    transitions = {first: {"done": pause}, pause: {"timeout": second}, second: {"done": Done}}


go = WaitForEvent("go").named("go")


@step
async def after(ctx: Context[Load]) -> Ok:
    """The step after a wait: the signal brought the time at which it was sent, a timer brought nothing."""
    marks.record(ctx.output(go).get("sent", 0) if "go" in ctx.steps else ctx.run)
    return Ok("done")


class Signalled(Workflow[Load], unique=Unique("signalled")):
    """A wait for a signal, and a step."""

    initial = go
    transitions = {go: {"received": after}, after: {"done": Done}}


alarm = Wait(timedelta(seconds=3)).named("alarm")


class Alarmed(Workflow[Load], unique=Unique("alarmed")):
    """A timer of three seconds, and a step."""

    initial = alarm
    transitions = {alarm: {"timeout": after}, after: {"done": Done}}


long = Wait(timedelta(days=1)).named("long")


class Sleeping(Workflow[Load], unique=Unique("sleeping")):
    """A timer that does not end while anybody measures."""

    initial = long
    transitions = {long: {"timeout": Done}}


WORKFLOWS = (Single, Chain, Fan, Timed, Signalled, Alarmed, Sleeping)
app = Pgflow(workflows=WORKFLOWS)
