"""Short, repeatable acts of a client and a worker, during which a commit or its answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from pgflow import (
    Context,
    Done,
    Error,
    Instance,
    Ok,
    Pgflow,
    Retry,
    Started,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    step,
)
from tests.worker.waiting import until

Input: TypeAlias = dict[str, Any]

BRIEFLY = timedelta(seconds=0.15)
QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=10))
LEDGER = "create table ledger (run bigint, step text)"
ENTER = "insert into ledger values (%s, %s)"

fixed: set[str] = set()  # instances whose broken step is fixed


@step
async def first(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": 1})


@step
def second(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": ctx.steps["first"]["n"] + 1})


@step
async def third(ctx: Context[Input]) -> Ok:
    return Ok("done", {"n": ctx.steps["second"]["n"] + 1})


class Chain(Workflow[Input], unique=Unique("chain", scope="none")):
    """Three steps in a row. Any number may have its key, so nothing but an idempotency key keeps a second one away."""

    initial = first
    transitions = {first: {"done": second}, second: {"done": third}, third: {"done": Done}}


@step
async def spread(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step(retry=QUICKLY)
async def left(ctx: Context[Input]) -> Ok | Error:
    return Ok("done", 1) if ctx.attempt > 1 else Error("the first attempt fails")


@step
def right(ctx: Context[Input]) -> Ok:
    return Ok("done", 2)


@step(transactional=True)
def book(ctx: Context[Input]) -> Ok:
    ctx.conn.execute(ENTER, [ctx.run, ctx.step])
    return Ok("done", 3)


@step(transactional=True)
async def abook(ctx: Context[Input]) -> Ok:
    await ctx.conn.execute(ENTER, [ctx.run, ctx.step])
    return Ok("done", ctx.steps["left"] + ctx.steps["right"] + ctx.steps["book"])


class Fan(Workflow[Input], unique=Unique("fan", scope="none")):
    """Three branches, one of which is tried twice and one of which writes, and a join that writes."""

    initial = spread
    transitions = {
        spread: {"done": [left, right, book]},
        left: {"done": abook},
        right: {"done": abook},
        book: {"done": abook},
        abook: {"done": Done},
    }


nap = Wait(BRIEFLY).named("nap")


class Timed(Workflow[Input], unique=Unique("timed", scope="none")):
    """A timer, and a step after it."""

    initial = nap
    transitions = {nap: {"timeout": first}, first: {"done": Done}}


word = WaitForEvent("word").named("word")


@step
async def answer(ctx: Context[Input]) -> Ok:
    return Ok("done", ctx.steps["word"])


class Asked(Workflow[Input], unique=Unique("asked", scope="none")):
    """A step, a wait for a signal, and a step that has its payload."""

    initial = first
    transitions = {first: {"done": word}, word: {"received": answer}, answer: {"done": Done}}


@step
def broken(ctx: Context[Input]) -> Ok | Error:
    return Ok("done") if ctx.id in fixed else Error("it is broken", retry=False)


class Broken(Workflow[Input], unique=Unique("broken", scope="none")):
    """A step that fails until it is fixed, after one that does not run again."""

    initial = first
    transitions = {first: {"done": broken}, broken: {"done": Done}}


WORKFLOWS = (Chain, Fan, Timed, Asked, Broken)
app = Pgflow(workflows=WORKFLOWS)  # for worker processes


@dataclass(frozen=True, slots=True)
class Ending:
    """The expected end of an instance: its status, its completed steps, its number of signals."""

    status: str
    steps: tuple[str, ...]
    signals: int = 0

    @property
    def writes(self) -> tuple[str, ...]:
        """The steps among them that enter themselves into the ledger."""
        return tuple(each for each in self.steps if each in ("book", "abook"))


@dataclass(slots=True)
class Scene:
    """What an act has: the client's app, `look` past every fault, and values of its own.

    `expected` is the end of each instance, by its business value.
    """

    app: Pgflow
    look: Callable[[str], Instance]
    name: str
    expected: dict[str, Ending] = field(default_factory=dict)

    def value(self, name: str, status: str, steps: str, signals: int = 0) -> str:
        """Return a business value, and remember the expected end of its instance."""
        value = f"{self.name}-{name}"
        self.expected[value] = Ending(status, tuple(steps.split()), signals)
        return value

    def until(self, started: Started, *statuses: str) -> None:
        """Wait until an instance has one of these statuses."""
        until(lambda: self.look(started.id).status in statuses, f"{started.id} {statuses}", patience=10, pause=0.01)


def starting(scene: Scene) -> None:
    """One, many at once, asynchronously, and with a key that is used a second time."""
    app, whole = scene.app, "first second third"
    app.start(Chain, scene.value("one", "completed", whole))
    keyed = scene.value("keyed", "completed", whole)
    started = [app.start(Chain, keyed, idempotency_key=f"{keyed} key") for _ in range(2)]
    assert started[0] == started[1]
    many = [(scene.value(f"many{number}", "completed", whole),) for number in range(3)]
    assert len({each.run for each in app.start_many(Chain, many)}) == 3
    asyncio.run(_started_later(scene.app, scene.value("async", "completed", whole)))


async def _started_later(app: Pgflow, value: str) -> None:
    await app.astart(Chain, value, delay=timedelta(seconds=0.1))


def working(scene: Scene) -> None:
    """A chain, and a fan-out with a retry, transactional steps and a join."""
    scene.app.start(Chain, scene.value("chain", "completed", "first second third"))
    scene.app.start(Fan, scene.value("fan", "completed", "spread left right book abook"))


def waiting(scene: Scene) -> None:
    """A timer; a signal that comes before the wait, one that comes later, and one that is sent by the clock."""
    app, whole = scene.app, "first word answer"
    app.start(Timed, scene.value("timed", "completed", "nap first"))
    # Later than the repetition of a call whose answer was lost, on a busy machine.
    early = app.start(Asked, scene.value("early", "completed", whole, 1), delay=timedelta(seconds=0.7))
    assert app.resume(Asked, early.id, "word", "early") == "kept"
    late = app.start(Asked, scene.value("late", "completed", whole, 1))
    clock = app.start(Asked, scene.value("clock", "completed", whole, 1))
    scene.until(late, "waiting")
    assert app.resume(Asked, late.id, "word", "late") == "delivered"
    app.schedule_resume(Asked, clock.id, word, BRIEFLY, payload="clock")
    never = app.schedule_resume(Asked, clock.id, word, timedelta(days=1), payload="never")
    assert never.cancel()


def ending(scene: Scene) -> None:
    """A cancel, and a retry after a failure."""
    app = scene.app
    waits = app.start(Asked, scene.value("cancelled", "cancelled", "first"))
    fails = app.start(Broken, scene.value("failed", "completed", "first broken"))
    scene.until(waits, "waiting")
    app.cancel(Asked, waits.id, reason="not wanted")
    scene.until(fails, "failed")
    fixed.add(fails.id)
    app.retry(Broken, fails.id)


Act: TypeAlias = Callable[[Scene], None]
ACTS: dict[str, Act] = {act.__name__: act for act in (starting, working, waiting, ending)}
