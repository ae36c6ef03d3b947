"""The workflows that both stacks run."""

from __future__ import annotations

import asyncio
import time
from datetime import date, timedelta
from threading import Event
from typing import Any

from pgflow import (
    Async,
    Context,
    Done,
    Error,
    Ok,
    Retry,
    Snooze,
    Step,
    Unique,
    Wait,
    WaitForEvent,
    Workflow,
    route,
    step,
)
from tests.worker.waiting import PATIENCE

Input = dict[str, Any]
SHORTLY = timedelta(seconds=1.5)  # longer than a test needs for two calls
QUICKLY = Retry(max_attempts=3, base=timedelta(milliseconds=10))


class Scene:
    """Lets a test observe and control a step."""

    def __init__(self) -> None:
        self.begun = Event()
        self.interrupted = Event()
        self.go = Event()
        self.thread_begun, self.loop_begun = Event(), Event()


SCENES: dict[str, Scene] = {}


class Mended(Exception):
    """An error that is not retried."""


@step(events=("x", "y"))
def first(ctx: Context[Input]) -> Ok:
    return Ok(ctx.initial.get("event", "x"), {"on": date(2030, 1, 1), "pair": (1, 2)}, metadata={"by": ctx.step})


@step
async def left(ctx: Context[Input]) -> Ok:
    return Ok("done", {"seen": ctx.steps["first"]})


@step
def right(ctx: Context[Input]) -> Ok:
    return Ok("done", "right")


@step
def meet(ctx: Context[Input]) -> Ok:
    return Ok("done", {"met": sorted(set(ctx.steps) - {"first"}), "meta": dict(ctx.metadata)})


class Linear(Workflow[Input], unique=Unique("linear"), tags=["tagged"], metadata={"team": "a"}):
    """One step after the other."""

    initial = first
    transitions = {first: {"x": left, "y": left}, left: {"done": meet}, meet: {"done": Done}}


class Exclusive(Workflow[Input], unique=Unique("exclusive")):
    """One of two branches, with a join."""

    initial = first
    transitions = {first: {"x": left, "y": right}, left: {"done": meet}, right: {"done": meet}, meet: {"done": Done}}


class Forked(Workflow[Input], unique=Unique("forked")):
    """Both branches, or none."""

    initial = first
    transitions = {
        first: {"x": [left, right], "y": Done},
        left: {"done": meet},
        right: {"done": meet},
        meet: {"done": Done},
    }


def wanted(ctx: Context[Input]) -> list[Step]:
    return [each for each in (left, right) if each.key in ctx.initial["wanted"]]


class Routed(Workflow[Input], unique=Unique("routed")):
    """A route that chooses one of two branches, or both."""

    initial = first
    transitions = {
        first: {"x": route(wanted, left, right), "y": Done},
        left: {"done": meet},
        right: {"done": meet},
        meet: {"done": Done},
    }


@step
def slow(ctx: Context[Input]) -> Ok:
    seen = SCENES[ctx.value]
    seen.thread_begun.set()
    assert seen.loop_begun.wait(PATIENCE)
    return Ok("done")


@step
async def slow_async(ctx: Context[Input]) -> Ok:
    seen = SCENES[ctx.value]
    seen.loop_begun.set()
    assert await asyncio.to_thread(seen.thread_begun.wait, PATIENCE)
    return Ok("done")


class Overlapping(Workflow[Input], unique=Unique("overlapping")):
    """Steps in threads and on the loop, each of which ends when the other one has begun."""

    initial = first
    transitions = {
        first: {"x": [slow, slow_async], "y": [slow.named("slow_too"), slow_async.named("slow_async_too")]},
        slow: {"done": meet},
        slow_async: {"done": meet},
        slow.named("slow_too"): {"done": meet},
        slow_async.named("slow_async_too"): {"done": meet},
        meet: {"done": Done},
    }


@step(retry=Retry(max_attempts=3, base=timedelta(milliseconds=10), never_on=(Mended,)))
def fallible(ctx: Context[Input]) -> Any:
    match ctx.initial.get("how"):
        case "flaky" if ctx.attempt < 3:
            raise ConnectionError(f"attempt {ctx.attempt}")
        case "raises":
            raise ConnectionError("down")
        case "exits":
            raise SystemExit(3)
        case "never_on":
            raise Mended("never again")
        case "no_retry":
            return Error("card expired", retry=False)
        case "returns":
            return Error("declined")
        case "snoozes" if time.time() < ctx.initial["until"]:
            return Snooze(timedelta(milliseconds=20))
        case "nonsense":
            return {"event": "done"}
        case "undeclared":
            return Ok("elsewhere")
        case "unserialisable":
            return Ok("done", object())
        case "infinite":
            return Ok("done", {"n": float("inf")})
        case "spoils":
            ctx.initial["how"] = "spoilt"
            ctx.steps["first"]["on"] = "spoilt"
    return Ok("done", {"attempt": ctx.attempt})


class Fallible(Workflow[Input], unique=Unique("fallible"), retry=QUICKLY):
    """A step that fails as its input demands."""

    initial = first
    transitions = {first: {"x": fallible, "y": Done}, fallible: {"done": left}, left: {"done": Done}}


answer = WaitForEvent("answered").named("answer")


class Asking(Workflow[Input], unique=Unique("asking")):
    """A wait for a signal."""

    initial = first
    transitions = {first: {"x": answer, "y": Done}, answer: {"received": meet}, meet: {"done": Done}}


again, last = WaitForEvent("answered").named("again"), WaitForEvent("closed").named("last")


class Repeating(Workflow[Input], unique=Unique("repeating")):
    """Two waits for signals of one name, one after the other, and a third for another."""

    initial = answer
    transitions = {answer: {"received": again}, again: {"received": last}, last: {"received": Done}}


ann, bob = WaitForEvent("signed").named("ann"), WaitForEvent("signed").named("bob")


class Signing(Workflow[Input], unique=Unique("signing")):
    """Two concurrent waits for signals of one name."""

    initial = first
    transitions = {
        first: {"x": [ann, bob], "y": Done},
        ann: {"received": meet},
        bob: {"received": meet},
        meet: {"done": Done},
    }


hurried = WaitForEvent("answered", timeout=SHORTLY).named("hurried")


class Hurrying(Workflow[Input], unique=Unique("hurrying")):
    """A wait with a timeout."""

    initial = hurried
    transitions = {hurried: {"received": right, "timeout": Done}, right: {"done": Done}}


pause = Wait(timedelta(milliseconds=200)).named("pause")


class Pausing(Workflow[Input], unique=Unique("pausing")):
    """A timer."""

    initial = pause
    transitions = {pause: {"timeout": right}, right: {"done": Done}}


@step(events=("yes", "no"))
def decision(ctx: Context[Input]) -> Async:
    return Async()


def decided(ctx: Context[Input]) -> Step:
    return left if ctx.steps["decision"] == "left" else right


class Deciding(Workflow[Input], unique=Unique("deciding")):
    """A custom step that waits, and whose event is routed."""

    initial = decision
    transitions = {
        decision: {
            "yes": route(lambda ctx: left if ctx.steps["decision"] == "left" else right, left, right),
            "no": Done,
        },
        left: {"done": Done},
        right: {"done": Done},
    }


@step
async def linger(ctx: Context[Input]) -> Ok:
    scene = SCENES[ctx.value]
    scene.begun.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        scene.interrupted.set()
        raise
    return Ok("done")


@step
def block(ctx: Context[Input]) -> Ok:
    scene = SCENES[ctx.value]
    scene.begun.set()
    scene.go.wait(30)
    return Ok("done")


class Lingering(Workflow[Input], unique=Unique("lingering")):
    """A step that takes long, on the loop or in a thread."""

    initial = first
    transitions = {
        first: {"x": linger, "y": block},
        linger: {"done": right},
        block: {"done": right},
        right: {"done": Done},
    }


class Anyone(Workflow[Input], unique=Unique("visit", scope="none")):
    """Any number may be active."""

    initial = answer
    transitions = {answer: {"received": Done}}


class Worldwide(Workflow[Input], unique=Unique("world", scope="global")):
    """Only one in all workflows with this key."""

    initial = answer
    transitions = {answer: {"received": Done}}


class WorldwideToo(Workflow[Input], unique=Unique("world", scope="global")):
    """Another workflow with the same key."""

    initial = answer
    transitions = {answer: {"received": Done}}


class AskingToo(Workflow[Input], unique=Unique("asking")):
    """Another workflow with the key of Asking, each with its own scope."""

    initial = answer
    transitions = {answer: {"received": Done}}


WORKFLOWS = (
    *(Linear, Exclusive, Forked, Routed, Overlapping, Fallible),
    *(Asking, Repeating, Signing, Hurrying, Pausing, Deciding, Lingering),
    *(Anyone, Worldwide, WorldwideToo, AskingToo),
)
