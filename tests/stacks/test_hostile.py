"""Whatever a step raises or returns ends its attempt and frees its slot, on both stacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NoReturn, Self

import pytest
from pydantic import BaseModel, model_serializer, model_validator

from pgflow import Async, Context, Done, Error, Ok, Retry, Snooze, Step, Unique, Workflow, step, telemetry
from pgflow.core.definition.step import Parking
from pgflow.core.values.sanitize import MAX_TEXT_LENGTH
from tests.hostile import CONTROL_FLOW, HOSTILE, HostileRepr, HostileText
from tests.stacks.conftest import Stack

Input = dict[str, Any]
ONCE = Retry(max_attempts=1)


@step(retry=ONCE)
def in_a_thread(ctx: Context[Input]) -> Ok:
    raise HOSTILE[ctx.initial["how"]]()


@step(retry=ONCE)
async def on_the_loop(ctx: Context[Input]) -> Ok:
    raise HOSTILE[ctx.initial["how"]]()


@step(retry=ONCE)
async def in_a_task_of_its_own(ctx: Context[Input]) -> Ok:
    async def child() -> NoReturn:
        raise HOSTILE[ctx.initial["how"]]()

    asyncio.get_running_loop().call_soon(_exit)
    return await asyncio.create_task(child())


@step(retry=Retry(max_attempts=3, base=timedelta(milliseconds=1)))
async def again_and_again(ctx: Context[Input]) -> Ok:
    raise HOSTILE[ctx.initial["how"]]()


class Output(BaseModel):
    """Its code raises."""

    how: str

    @model_serializer
    def refuse(self) -> dict[str, Any]:
        raise HOSTILE[self.how]()


class Declared(BaseModel):
    """Cannot be read."""

    how: str

    @model_validator(mode="after")
    def refuse(self) -> Self:
        raise HOSTILE[self.how]()


@step(retry=ONCE)
def with_an_output(ctx: Context[Input]) -> Ok:
    return Ok("done", Output(how=ctx.initial["how"]))


@step(retry=ONCE, output=Declared)
def with_a_declared_output(ctx: Context[Input]) -> Ok:
    return Ok("done", {"how": ctx.initial["how"]})


class LongDelay(timedelta):
    """A delay whose methods raise."""

    def total_seconds(self) -> NoReturn:
        raise SystemExit("delay")

    __radd__ = __add__ = __repr__ = __str__ = total_seconds  # type: ignore[assignment]


class HostileEvent(str):
    """An event's name whose methods raise."""

    __slots__ = ()

    def encode(self, *args: Any) -> NoReturn:
        raise SystemExit("event")

    __str__ = __repr__ = __format__ = encode


@step(retry=ONCE)
def with_a_result(ctx: Context[Input]) -> Any:
    match ctx.initial["how"]:
        case "object":
            return HostileRepr()
        case "reason":
            return Error(HostileRepr())  # type: ignore[arg-type]
        case "text":
            return Error(HostileText("x"))
        case "retry":
            return Error("x", retry=HostileRepr())  # type: ignore[arg-type]
        case "metadata":
            return Ok("done", metadata={"x": HostileRepr()})
        case "class":
            return type("Lying", (), {"__class__": property(_exit)})()


def _exit(*args: object) -> NoReturn:
    raise SystemExit("from within")


@step(retry=ONCE)
def with_a_delay(ctx: Context[Input]) -> Any:
    return Snooze(LongDelay(0)) if SNOOZED.add(ctx.value) else Ok(HostileEvent("done"))


class Snoozed(set[str]):
    """Records the values it has seen."""

    def add(self, value: str) -> bool:  # type: ignore[override]
        is_new = value not in self
        super().add(value)
        return is_new


SNOOZED = Snoozed()


class Waiting(Step):
    """Its code that describes its wait raises."""

    events = ("done",)
    retry = ONCE

    def execute(self, ctx: Context[Any]) -> Async:
        return Async()

    def parking(self) -> Parking:
        if not PARKING:  # while the class is checked and registered
            return super().parking()
        raise HOSTILE[PARKING[-1]]()


PARKING: list[str] = []  # the error to raise: it receives no context


class Parked(Workflow[Input], unique=Unique("parked")):
    initial = Waiting
    transitions = {Waiting: {"done": Done}}


class Thread(Workflow[Input], unique=Unique("thread")):
    initial = in_a_thread
    transitions = {in_a_thread: {"done": Done}}


class Loop(Workflow[Input], unique=Unique("loop")):
    initial = on_the_loop
    transitions = {on_the_loop: {"done": Done}}


class Child(Workflow[Input], unique=Unique("child")):
    initial = in_a_task_of_its_own
    transitions = {in_a_task_of_its_own: {"done": Done}}


class Again(Workflow[Input], unique=Unique("again")):
    initial = again_and_again
    transitions = {again_and_again: {"done": Done}}


class Writing(Workflow[Input], unique=Unique("writing")):
    initial = with_an_output
    transitions = {with_an_output: {"done": Done}}


class Declaring(Workflow[Input], unique=Unique("declaring")):
    initial = with_a_declared_output
    transitions = {with_a_declared_output: {"done": Done}}


class Returning(Workflow[Input], unique=Unique("returning")):
    initial = with_a_result
    transitions = {with_a_result: {"done": Done}}


class Delaying(Workflow[Input], unique=Unique("delaying")):
    initial = with_a_delay
    transitions = {with_a_delay: {"done": Done}}


@step
def sound(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Sound(Workflow[Input], unique=Unique("sound")):
    """Shows that a slot is free."""

    initial = sound
    transitions = {sound: {"done": Done}}


WORKFLOWS = (Thread, Loop, Child, Again, Writing, Declaring, Returning, Delaying, Sound, Parked)


def all_fail(stack: Stack, workflow: type[Workflow[Any]], hows: Iterator[str] | Any) -> None:
    """Start an instance for each `how`, more than there are slots: each fails, and a sound one completes after all."""
    values = {how: f"{stack.value}-{number}" for number, how in enumerate(hows)}
    for how, value in values.items():
        workflow.start(value, {"how": how})
    for how, value in values.items():
        failed = stack.until(workflow, value=value)
        assert failed.status == "failed", how
        assert failed.error is not None
        assert 0 < len(failed.error["reason"]) <= MAX_TEXT_LENGTH, how
        assert len(failed.error.get("trace", "")) <= MAX_TEXT_LENGTH, how
    Sound.start(stack.value)
    assert stack.until(Sound).status == "completed"


@pytest.mark.parametrize("workflow", [Thread, Loop, Child, Writing, Declaring], ids=lambda workflow: workflow.name)
def test_an_exception_of_any_kind_fails_its_instance_alone(stack: Stack, workflow: type[Workflow[Any]]) -> None:
    all_fail(stack, workflow, HOSTILE)


def test_an_exception_of_any_kind_is_an_attempt_that_counts(stack: Stack) -> None:
    all_fail(stack, Again, [f"a {kind.__name__}" for kind in CONTROL_FLOW])
    for number in range(len(CONTROL_FLOW)):
        failed = Again.get(f"{stack.value}-{number}")
        assert failed.error is not None
        assert (failed.error["attempt"], len(failed.error["attempts"])) == (3, 2)


def test_a_result_that_cannot_be_read_fails_its_instance_alone(stack: Stack) -> None:
    all_fail(stack, Returning, ["object", "reason", "text", "retry", "metadata", "class"])


def test_a_delay_and_an_event_of_subclasses_are_converted(stack: Stack) -> None:
    Delaying.start(stack.value)
    assert stack.until(Delaying).status == "completed"


@pytest.mark.parametrize("name", [f"a {kind.__name__}" for kind in CONTROL_FLOW])
def test_a_wait_that_cannot_be_described_fails_its_instance_alone(stack: Stack, name: str) -> None:
    PARKING.append(name)
    try:
        all_fail(stack, Parked, [name])
    finally:
        PARKING.clear()


@pytest.mark.parametrize(
    "name",
    [
        *(f"a {kind.__name__}" for kind in CONTROL_FLOW if kind is not KeyboardInterrupt),  # pytest's own
        *("str raises SystemExit", "getattr raises", "notes exit"),
    ],
)
def test_a_handler_of_telemetry_that_raises_stops_no_step(stack: Stack, name: str) -> None:
    def fails(event: telemetry.Event, config: object) -> None:
        raise HOSTILE[name]()

    telemetry.attach("fails", telemetry.events(), fails)
    try:
        Sound.start(stack.value)
        assert stack.until(Sound).status == "completed"
    finally:
        telemetry.detach("fails")
