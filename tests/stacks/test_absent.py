"""An input, an output or a payload that is left out differs from None and from an empty object, on both stacks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from pgflow import Async, Context, Done, Instance, Ok, Pgflow, Step, Unique, Wait, Workflow, route, step
from pgflow.core.values.absent import ABSENT
from pgflow.errors import InvalidInput, InvalidPayload
from pgflow.local import Local
from tests.stacks.conftest import Stack


class Limits(BaseModel):
    most: int = 7


class Receipt(BaseModel):
    number: str


SEEN: dict[str, dict[str, Any]] = {}


@step
def look(ctx: Context[Any]) -> Ok:
    SEEN.setdefault(ctx.value, {})["initial"] = ctx.initial
    return Ok("done")


class AnyInput(Workflow[Any], unique=Unique("any_input")):
    initial = look
    transitions = {look: {"done": Done}}


class NumberInput(Workflow[int | None], unique=Unique("number_input")):
    initial = look
    transitions = {look: {"done": Done}}


class OptionalInput(Workflow[Limits | None], unique=Unique("optional_input")):
    initial = look
    transitions = {look: {"done": Done}}


class PlainInput(Workflow[Limits], unique=Unique("plain_input")):
    initial = look
    transitions = {look: {"done": Done}}


class DictInput(Workflow[dict[str, Any]], unique=Unique("dict_input")):
    initial = look
    transitions = {look: {"done": Done}}


class NeededInput(Workflow[Receipt], unique=Unique("needed_input")):
    initial = look
    transitions = {look: {"done": Done}}


INPUTS = {each.name: each for each in (AnyInput, NumberInput, OptionalInput, PlainInput, DictInput, NeededInput)}
REFUSED = object()

# Workflow, input given, what is stored of it, what its steps see.
GIVEN_INPUTS: list[tuple[str, Any, Any, Any]] = [
    ("AnyInput", ABSENT, {}, {}),
    ("AnyInput", None, None, None),
    ("AnyInput", {}, {}, {}),
    ("NumberInput", ABSENT, None, None),
    ("NumberInput", None, None, None),
    ("NumberInput", {}, REFUSED, None),
    ("NumberInput", 0, 0, 0),
    ("OptionalInput", ABSENT, None, None),
    ("OptionalInput", None, None, None),
    ("OptionalInput", {}, {"most": 7}, Limits()),
    ("PlainInput", ABSENT, {"most": 7}, Limits()),
    ("PlainInput", None, REFUSED, None),
    ("PlainInput", {}, {"most": 7}, Limits()),
    ("DictInput", ABSENT, {}, {}),
    ("DictInput", None, REFUSED, None),
    ("DictInput", {}, {}, {}),
    ("NeededInput", ABSENT, REFUSED, None),
    ("NeededInput", None, REFUSED, None),
    ("NeededInput", {}, REFUSED, None),
]


class Answering(Step):
    """Returns the output that the input names; subclasses declare its type."""

    events = ("done",)

    def execute(self, ctx: Context[Any]) -> Ok:
        match ctx.initial:
            case "absent":
                return Ok("done")
            case "none":
                return Ok("done", None)
            case "empty":
                return Ok("done", {})
        return Ok("done", Receipt(number="r-1"))


class Untyped(Answering):
    """Declares no output."""


class Optional(Answering):
    output = Limits | None


class Plain(Answering):
    output = Limits


class Ask(Step):
    """Waits for a signal, whose payload becomes its output."""

    events = ("told", "timeout")

    def execute(self, ctx: Context[Any]) -> Async:
        return Async()


class AskOptional(Ask):
    output = Limits | None


class AskPlain(Ask):
    output = Limits


class Sleep(Wait):
    """A timer, which ends without an output."""

    output = Limits | None


def reading(asked: type[Step]) -> type[Step]:
    """Make a step that records what it reads of another step's output."""

    class Reader(Step):
        events = ("done",)
        step_key = "reader"

        def execute(self, ctx: Context[Any]) -> Ok:
            SEEN.setdefault(ctx.value, {}).update(json=ctx.steps[asked.key], typed=ctx.output(asked))
            return Ok("done")

    return Reader


def chosen(ctx: Context[Any]) -> type[Step]:
    SEEN.setdefault(ctx.value, {})["routed"] = ctx.output(Optional)
    return ReadOptional


ReadUntyped, ReadOptional, ReadPlain = reading(Untyped), reading(Optional), reading(Plain)
ReadAsk, ReadAskOptional, ReadAskPlain = reading(Ask), reading(AskOptional), reading(AskPlain)
ReadSleep = reading(Sleep)


class UntypedOutput(Workflow[str], unique=Unique("untyped_output")):
    initial = Untyped
    transitions = {Untyped: {"done": ReadUntyped}, ReadUntyped: {"done": Done}}


class OptionalOutput(Workflow[str], unique=Unique("optional_output")):
    initial = Optional
    transitions = {Optional: {"done": route(chosen, ReadOptional, Done)}, ReadOptional: {"done": Done}}


class PlainOutput(Workflow[str], unique=Unique("plain_output")):
    initial = Plain
    transitions = {Plain: {"done": ReadPlain}, ReadPlain: {"done": Done}}


class UntypedPayload(Workflow[Any], unique=Unique("untyped_payload")):
    initial = Ask
    transitions = {Ask: {"told": ReadAsk, "timeout": Done}, ReadAsk: {"done": Done}}


class OptionalPayload(Workflow[Any], unique=Unique("optional_payload")):
    initial = AskOptional
    transitions = {AskOptional: {"told": ReadAskOptional, "timeout": Done}, ReadAskOptional: {"done": Done}}


class PlainPayload(Workflow[Any], unique=Unique("plain_payload")):
    initial = AskPlain
    transitions = {AskPlain: {"told": ReadAskPlain, "timeout": Done}, ReadAskPlain: {"done": Done}}


SLEEP = Sleep(duration=timedelta(milliseconds=10))


class Timed(Workflow[Any], unique=Unique("timed")):
    initial = SLEEP
    transitions = {SLEEP: {"timeout": ReadSleep}, ReadSleep: {"done": Done}}


OUTPUTS = {"untyped": UntypedOutput, "optional": OptionalOutput, "plain": PlainOutput}
PAYLOADS = {"untyped": UntypedPayload, "optional": OptionalPayload, "plain": PlainPayload}
ASKED: dict[str, tuple[Any, Any]] = {
    "untyped": (Untyped, Ask),
    "optional": (Optional, AskOptional),
    "plain": (Plain, AskPlain),
}
WORKFLOWS = (*INPUTS.values(), *OUTPUTS.values(), *PAYLOADS.values(), Timed)

# Declared output, what the step or the signal gives, its output as JSON, and in the declared type.
GIVEN_OUTPUTS: list[tuple[str, str, Any, Any]] = [
    ("untyped", "absent", {}, {}),
    ("untyped", "none", None, None),
    ("untyped", "empty", {}, {}),
    ("optional", "absent", None, None),
    ("optional", "none", None, None),
    ("optional", "empty", {}, Limits()),
    ("plain", "absent", {}, Limits()),
    ("plain", "none", REFUSED, None),
    ("plain", "empty", {}, Limits()),
]
PAYLOAD: dict[str, Any] = {"absent": ABSENT, "none": None, "empty": {}}


def completed(stack: Stack, workflow: type[Workflow[Any]], value: str | None = None) -> Instance:
    found = stack.until(workflow, value=value)
    assert (found.status, found.error) == ("completed", None)
    return found


@pytest.mark.parametrize(("name", "given", "stored", "seen"), GIVEN_INPUTS)
def test_an_input_that_is_left_out_is_not_none_and_not_an_empty_object(
    stack: Stack, name: str, given: Any, stored: Any, seen: Any
) -> None:
    workflow: type[Workflow[Any]] = INPUTS[name]
    value = stack.value
    start = () if given is ABSENT else (given,)
    if stored is REFUSED:
        with pytest.raises(InvalidInput, match=f"^{name}: "):
            workflow.start(value, *start)
        with pytest.raises(InvalidInput, match=f"^{name}: "):
            workflow.start_many([(value, *start)])
        assert workflow.runs(value) == []
        return
    workflow.start(value, *start)
    workflow.start_many([(f"{value}-many", *start)])
    for each in (value, f"{value}-many"):
        found = completed(stack, workflow, each)
        assert (type(found.input), found.input) == (type(stored), stored)
        assert (type(SEEN[each]["initial"]), SEEN[each]["initial"]) == (type(seen), seen)


@pytest.mark.parametrize(("declared", "given", "as_json", "typed"), GIVEN_OUTPUTS)
def test_an_output_that_is_left_out_is_not_none_and_not_an_empty_object(
    stack: Stack, declared: str, given: str, as_json: Any, typed: Any
) -> None:
    workflow = OUTPUTS[declared]
    asked, _ = ASKED[declared]
    workflow.start(stack.value, given)
    if as_json is REFUSED:
        failed = stack.until(workflow)
        assert failed.error is not None
        assert (failed.error["step"], failed.error["type"]) == ("plain", "InvalidPayload")
        assert "step 'plain' declares the output Limits, which the value is not" in failed.error["reason"]
        return
    found = completed(stack, workflow)
    assert SEEN[stack.value]["json"] == found.steps[asked.key] == as_json
    assert SEEN[stack.value]["typed"] == found.output(asked) == typed
    assert SEEN[stack.value].get("routed", typed) == typed


@pytest.mark.parametrize("when", ["delivered", "kept", "scheduled"])
@pytest.mark.parametrize(("declared", "given", "as_json", "typed"), GIVEN_OUTPUTS)
def test_a_payload_that_is_left_out_is_not_none_and_not_an_empty_object(
    stack: Stack, declared: str, given: str, as_json: Any, typed: Any, when: str
) -> None:
    workflow, payload = PAYLOADS[declared], PAYLOAD[given]
    _, asked = ASKED[declared]
    sent = () if payload is ABSENT else (payload,)
    workflow.start(stack.value, None, **({"delay": timedelta(milliseconds=300)} if when == "kept" else {}))  # type: ignore[arg-type]
    if when != "kept":
        stack.until(workflow, "waiting")

    def send() -> None:
        if when == "scheduled":
            workflow.schedule_resume(stack.value, asked, timedelta(milliseconds=10), "told", *sent)
        else:
            assert workflow.resume(stack.value, "told", *sent) in ("kept", "delivered")

    if as_json is REFUSED:
        with pytest.raises(InvalidPayload, match="the payload is refused: step 'ask_plain' declares the output Limits"):
            send()
        workflow.cancel(stack.value)
        return
    send()
    if when == "kept":
        (signal,) = workflow.get(stack.value).signals
        assert (signal.payload, signal.has_payload) == (None if payload is ABSENT else payload, payload is not ABSENT)
    found = completed(stack, workflow)
    assert SEEN[stack.value]["json"] == found.steps[asked.key] == as_json
    assert SEEN[stack.value]["typed"] == found.output(asked) == typed


def test_a_timer_ends_a_wait_whose_type_is_optional_with_none(stack: Stack) -> None:
    Timed.start(stack.value)
    found = completed(stack, Timed)
    assert SEEN[stack.value] == {"json": None, "typed": None}
    assert found.output(SLEEP) is None


@pytest.mark.parametrize("given", ["absent", "none", "empty"])
def test_an_instance_that_is_put_again_still_distinguishes_none_from_an_empty_object(
    app: Local | Pgflow, stack: Stack, given: str
) -> None:
    OptionalOutput.start(stack.value, given)
    found = completed(stack, OptionalOutput)
    app.storage.put(replace(app.storage.get(found.id), tags=("again",)))
    again = app.storage.get(found.id)
    assert again.tags == ("again",)
    assert again.steps == found.steps
    assert again.output(Optional) == found.output(Optional)
    OptionalInput.start(stack.value, None)
    started = completed(stack, OptionalInput)
    app.storage.put(replace(started, tags=("again",)))
    assert app.storage.get(started.id).input is None


def test_an_input_or_output_of_another_type_that_is_put_fails_the_step_that_reads_it(
    app: Local | Pgflow, stack: Stack
) -> None:
    again: dict[str, Any] = {"status": "running", "finished_at": None}
    PlainInput.start(stack.value)
    found = completed(stack, PlainInput)
    app.storage.put(replace(found, **again, history=(), steps={}, input={"most": "many"}))
    failed = stack.until(PlainInput)
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"], failed.error["attempt"]) == ("look", "InvalidInput", 1)
    assert "PlainInput: the stored input does not fit Limits: most" in failed.error["reason"]

    PlainOutput.start(stack.value, "empty")
    found = completed(stack, PlainOutput)
    entry = replace(found.history[0], output={"most": "many"})
    app.storage.put(replace(found, **again, history=(entry,), steps={"plain": entry.output}))
    failed = stack.until(PlainOutput)
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"]) == (found.history[1].step, "InvalidPayload")
    assert "step 'plain' declares the output Limits, which the value is not: most" in failed.error["reason"]


def test_the_message_about_an_omitted_input_names_the_omission() -> None:
    with pytest.raises(InvalidInput, match=r"NeededInput: the input was left out, and {} does not fit"):
        NeededInput.write_input(ABSENT)
