"""The measured workflows. Their steps only write to the trace, so that the rest of the time is the engine's."""

from datetime import timedelta

from pydantic import BaseModel

from pgflow import Context, Done, Ok, Pgflow, Unique, UniqueTask, Wait, WaitForEvent, Workflow, step, task
from pgflow.bench import trace

__all__ = [
    "BRANCHES",
    "CHAIN",
    "TASKS",
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
    "count",
    "count_unique",
]

CHAIN = 5  # steps in a row
BRANCHES = 10  # in parallel
WAIT = timedelta(seconds=1)


class Load(BaseModel):
    """The input: `sent`, when it was started, in monotonic nanoseconds; 0 to count steps without timing them."""

    sent: int = 0


def _trace(ctx: Context[Load], number: int = 0) -> Ok:
    if ctx.initial.sent:
        trace.record(ctx.initial.sent, number)
    else:
        trace.count()
    return Ok("done", {"number": number})


@step
async def only(ctx: Context[Load]) -> Ok:
    """The one step."""
    return _trace(ctx)


class Single(Workflow[Load], unique=Unique("single")):
    """One step: a background task."""

    initial = only
    transitions = {only: {"done": Done}}


@step
async def first(ctx: Context[Load]) -> Ok:
    """The first step."""
    return _trace(ctx, 1)


@step
async def second(ctx: Context[Load]) -> Ok:
    """The second step."""
    return _trace(ctx, 2)


@step
async def third(ctx: Context[Load]) -> Ok:
    """The third step."""
    return _trace(ctx, 3)


@step
async def fourth(ctx: Context[Load]) -> Ok:
    """The fourth step."""
    return _trace(ctx, 4)


@step
async def fifth(ctx: Context[Load]) -> Ok:
    """The fifth step."""
    return _trace(ctx, 5)


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
    """A branch."""
    return _trace(ctx)


@step
async def join(ctx: Context[Load]) -> Ok:
    """The join after the branches."""
    return Ok("done", {"branches": sum(key.startswith("branch") for key in ctx.steps)})


class Fan(Workflow[Load], unique=Unique("fan")):
    """Ten parallel branches and a join."""

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
    """The step after a wait: a signal carries the time at which it was sent, a timer does not."""
    trace.record(ctx.output(go).get("sent", 0) if "go" in ctx.steps else ctx.run)
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
    """A timer that outlasts the benchmark."""

    initial = long
    transitions = {long: {"timeout": Done}}


@task
async def count(sent: int = 0) -> int:
    """A task that does nothing but count."""
    if sent:
        trace.record(sent)
    else:
        trace.count()
    return sent


@task(unique=UniqueTask(["sent"]), name="count_unique")
async def count_unique(sent: int = 0) -> int:
    """The same, unique by its argument."""
    trace.count()
    return sent


WORKFLOWS = (Single, Chain, Fan, Timed, Signalled, Alarmed, Sleeping)
TASKS = (count, count_unique)
app = Pgflow(workflows=WORKFLOWS, tasks=TASKS)
