"""A step is a value made of a class or a function, with a key, a configuration and declared events."""

from __future__ import annotations

import inspect
import logging
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from pgflow import Async, Context, Debug, Done, Error, Ok, Retry, Step, Wait, WaitForEvent, step
from pgflow.core.definition.step import Parking, as_step
from pgflow.errors import DefinitionError, InvalidPayload, UnknownStep


class Order(BaseModel):
    count: int


class Receipt(BaseModel):
    number: str


class Ship(Step):
    """Ship it."""

    events = ("shipped",)
    retry = Retry(max_attempts=8)
    carrier: str = "post"

    async def execute(self, ctx: Context[Order]) -> Ok:
        return Ok("shipped", {"by": self.carrier, "count": ctx.initial.count})


class Sized(Step):
    events = ("done",)
    output = Receipt
    size: int

    def execute(self, ctx: Context[Order]) -> Ok:
        return Ok("done", {"number": "r"})


@step(events=("paid", "declined"), retry=Retry(max_attempts=2), queue="money", transactional=True, output=Receipt)
async def charge(ctx: Context[Order]) -> Ok | Async | Error:
    """Take the money."""
    return Ok("paid", Receipt(number="r-1"))


@step
def email(ctx: Context[Order]) -> Ok:
    return Ok("done", ctx.initial.count)


def test_events_and_policies_need_no_annotation() -> None:
    assert Ship().emits() == ("shipped",)
    assert Ship.retry == Retry(max_attempts=8)
    assert list(Ship.model_fields) == ["carrier"]


def test_a_key_is_the_name_or_the_given_one() -> None:
    class Custom(Ship):
        step_key = "custom_key"

    assert (Ship.key, Ship().key, Ship().named("x").key) == ("ship", "ship", "x")
    assert (Custom.key, Custom().key) == ("custom_key", "custom_key")
    assert (charge.key, email.named("again").key) == ("charge", "again")


@pytest.mark.parametrize("key", ["", "a b", "1a", "a-b", "a::b", "x" * 101, None])
def test_a_name_that_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(DefinitionError, match="step Ship cannot be named"):
        Ship().named(key)


def test_steps_are_values() -> None:
    assert Ship() == Ship(carrier="post")
    assert Ship() == as_step(Ship) == Ship().named("ship")
    assert Ship() != Ship(carrier="bike")
    assert Ship() != Ship().named("other")
    assert len({Ship(), Ship(), Ship(carrier="bike"), Ship().named("other")}) == 3
    with pytest.raises(ValidationError, match="frozen"):
        Ship().carrier = "bike"  # type: ignore[misc] # the very thing that is refused


def test_unknown_configuration_is_refused() -> None:
    wrong: Any = {"speed": 3}
    with pytest.raises(ValidationError, match="speed"):
        Ship(**wrong)


def test_an_attribute_of_every_step_cannot_be_a_field() -> None:
    metaclass: Any = type(Step)
    with (
        pytest.warns(UserWarning, match="shadows"),
        pytest.raises(
            DefinitionError, match=r"step Odd: 'queue' is an attribute .* write `queue = …` without annotation"
        ),
    ):
        metaclass("Odd", (Step,), {"__annotations__": {"queue": str}, "queue": "x", "__module__": __name__})


def test_configuration_round_trips_through_json() -> None:
    bike = Ship(carrier="bike").named("by_bike")
    assert bike.config() == {"carrier": "bike"}
    assert Ship().named("by_bike").with_config(bike.config()) == bike
    assert email.config() is None
    assert email.with_config(None) is email


def test_a_stored_configuration_that_no_longer_fits_is_refused() -> None:
    with pytest.raises(
        DefinitionError, match=r"step 'sized': Sized cannot be made from its stored .*size: Field required"
    ):
        Sized(size=1).with_config({})


def test_a_class_with_required_configuration_reports_it() -> None:
    with pytest.raises(DefinitionError, match=r"Sized needs a configuration \(size\): write Sized\(size=…\)"):
        as_step(Sized)


def test_calling_a_step_made_of_a_function_calls_the_function() -> None:
    ctx = Context(Order(count=3))
    assert email(ctx) == email.execute(ctx) == Ok("done", 3)
    coroutine = charge(ctx)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == Ok("paid", Receipt(number="r-1"))


def test_a_step_has_is_async() -> None:
    assert [each.is_async for each in (Ship, Sized, type(charge), type(email))] == [True, False, True, False]
    assert inspect.iscoroutinefunction(charge.execute)
    assert not inspect.iscoroutinefunction(email.execute)


def test_the_decorator_sets_the_attributes_of_a_class() -> None:
    kind = type(charge)
    assert (kind.events, kind.queue, kind.transactional) == (("paid", "declined"), "money", True)
    assert (kind.retry, kind.output) == (Retry(max_attempts=2), Receipt)
    assert (kind.__name__, kind.__module__, kind.__doc__) == ("charge", __name__, "Take the money.")
    assert email.emits() == ("done",)


def test_two_functions_of_one_name_are_two_steps() -> None:
    def make() -> Step:
        @step
        def same(ctx: Context[Any]) -> Ok:
            return Ok("done")

        return same

    assert make() != make()


@pytest.mark.parametrize("given", [lambda ctx: Ok("done"), Ship, 3, "charge"])
def test_the_decorator_is_for_functions_with_a_name(given: Any) -> None:
    with pytest.raises(DefinitionError, match="@step"):
        step(given)


def test_a_lambda_may_be_given_a_name() -> None:
    named: Any = step(name="quick")(lambda ctx: Ok("done"))
    assert named.key == "quick"


def test_outputs_are_read_in_their_declared_type() -> None:
    ctx = Context(Order(count=1), steps={"charge": {"number": "r-1"}, "email": 3, "sized": {"number": "r"}})
    assert ctx.output(charge) == Receipt(number="r-1")
    assert ctx.output(Sized) == Receipt(number="r")
    assert ctx.output(email) == 3


def test_an_output_that_is_missing_or_wrong_is_explained() -> None:
    ctx = Context(Order(count=1), steps={"charge": {}}, workflow="OrderFlow", step="ship")
    with pytest.raises(InvalidPayload, match=r"step 'charge' declares the output Receipt, .* number: Field required"):
        ctx.output(charge)
    with pytest.raises(
        UnknownStep, match=r"OrderFlow: step 'email' has no output that 'ship' could .*; steps with an output: charge"
    ):
        ctx.output(email)
    with pytest.raises(LookupError):
        ctx.output(email)


def test_a_step_cannot_write_to_its_context() -> None:
    ctx: Any = Context(Order(count=1), steps={"a": 1}, metadata={"b": 2})
    for mapping in (ctx.steps, ctx.metadata):
        with pytest.raises(TypeError):
            mapping["x"] = 1
    with pytest.raises(AttributeError):
        ctx.attempt = 3
    assert ctx.with_output("c", 3).steps == {"a": 1, "c": 3}
    assert ctx.with_output("a", 3).steps == {"a": 3}
    assert ctx.steps == {"a": 1}
    assert ctx.steps == {"a": 1}
    assert repr(ctx.steps) == "{'a': 1}"


def test_a_change_of_an_output_stays_in_its_own_context() -> None:
    outputs = {"a": {"list": [{"n": 1}]}}
    one, other = Context(None, steps=outputs), Context(None, steps=outputs)
    one.steps["a"]["list"][0]["n"] = 2
    one.steps["a"]["new"] = 1
    assert one.steps == {"a": {"list": [{"n": 2}], "new": 1}}
    assert other.steps == outputs == {"a": {"list": [{"n": 1}]}}


def test_there_is_one_done_and_it_takes_no_signal() -> None:
    assert (Done.key, Done().emits(), Done().signals(), Done().config()) == ("done", ("done",), (), None)
    assert Done().execute(Context(None)) == Ok("done")
    with pytest.raises(DefinitionError, match="Done cannot be named 'end': a workflow has one end"):
        Done().named("end")


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (Wait(timedelta(minutes=5)), 300),
        (Wait(duration=timedelta(seconds=10)), 10),
        (Wait(seconds=10), 10),
        (Wait(minutes=5), 300),
        (Wait(hours=2), 7200),
        (Wait(days=1), 86_400),
        (Wait(days=1, minutes=1), 86_460),
    ],
)
def test_a_wait_has_the_given_duration(wait: Wait, seconds: int) -> None:
    assert wait.parking() == Parking({"timeout": "timeout"}, timedelta(seconds=seconds), "timeout")
    assert wait.with_config(wait.config()) == wait
    assert wait.execute(Context(None)) == Async()


@pytest.mark.parametrize("duration", [timedelta(0), timedelta(seconds=-1), timedelta(days=40_000), 5, "5m", None])
def test_an_invalid_wait_is_refused(duration: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Wait cannot wait for .*: give a timedelta greater than zero"):
        Wait(duration)


def test_a_wait_has_one_duration_in_known_units() -> None:
    with pytest.raises(DefinitionError, match="not both"):
        Wait(timedelta(1), hours=1)
    weeks: Any = {"weeks": 1}
    with pytest.raises(TypeError, match="weeks"):
        Wait(**weeks)


def test_a_wait_for_an_event_ends_with_its_signal_or_its_timeout() -> None:
    plain, named = WaitForEvent(), WaitForEvent("paid", timeout=timedelta(1))
    assert (plain.emits(), plain.signals(), plain.parking()) == (
        ("received",),
        ("received",),
        Parking({"received": "received"}),
    )
    assert (named.emits(), named.signals()) == (("received", "timeout"), ("paid",))
    assert named.parking() == Parking({"paid": "received"}, timedelta(1), "timeout")
    assert named.with_config(named.config()) == named


@pytest.mark.parametrize(
    "options", [{"event": 3}, {"event": "a b"}, {"event": ""}, {"timeout": 60}, {"timeout": timedelta(0)}]
)
def test_an_invalid_wait_for_an_event_is_refused(options: Any) -> None:
    with pytest.raises(DefinitionError, match="WaitForEvent cannot wait for"):
        WaitForEvent(**options)


def test_by_default_a_step_waits_for_signals_named_like_its_events() -> None:
    assert charge.parking() == Parking({"paid": "paid", "declined": "declined"})
    assert charge.signals() == ("paid", "declined")


def test_debug_logs_the_state_of_the_instance(caplog: pytest.LogCaptureFixture) -> None:
    ctx = Context(Order(count=3), steps={"a": {"x": 1}}, id="k::v", workflow="OrderFlow")
    with caplog.at_level(logging.DEBUG, logger="pgflow.debug"):
        assert Debug().execute(ctx) == Ok("completed")
    assert caplog.messages == ["OrderFlow k::v: initial=Order(count=3) steps={'a': {'x': 1}} history=['a'] metadata={}"]


def test_a_class_variable_is_not_configuration() -> None:
    class Own(Ship):
        rate: ClassVar[int] = 3

    assert Own().config() == {"carrier": "post"}
